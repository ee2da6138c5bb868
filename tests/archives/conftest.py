"""What these tests share: a short folder, state folders, a node that stands in for TorchServe."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from archives.judging.rollout_policy import Policy
from archives.state import control
from archives.state.journal import Entry, Journal
from tests.archives.standin import StandIn
from tests.archives.states import NEW, OLD, begin, row, write_logs


@pytest.fixture
def tmp_path(short_path: Path) -> Path:
    """As everywhere, but short: the names of user, worker and test are not in it.

    Servers have sockets below it, whose path may have 103 bytes.
    """
    return short_path


@pytest.fixture
def node(tmp_path: Path) -> Iterator[StandIn]:
    made = StandIn(tmp_path / "n", "a", versions={"1.0": 1, "2.0": 1})
    made.start()
    yield made
    made.stop()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A rollout at its canary, with nobody who runs it; its logs have ten studies a version."""
    journal = Journal(tmp_path / "state")
    with journal.lock():
        journal.append("deployed", rollout=None, model="m", stable=OLD, serves=[OLD])
        journal.append(
            "start", rollout="2.0-x", model="m", stable=OLD, candidate=NEW, serves=[OLD],
            salt="2.0-x", percent=0.0, shadow_percent=0.0, paused=False, step="verify",
            heads=["malignancy"], nodes="nodes.yaml", policy=Policy().model_dump(mode="json"),
        )  # fmt: skip
        journal.append("shadow", rollout="2.0-x", step="shadow", serves=[OLD, NEW],
                       shadow_percent=100.0, after="register")  # fmt: skip
        time.sleep(0.05)  # the shadow's requests lie between
        journal.append("canary", rollout="2.0-x", step="canary 50 %", percent=50.0,
                       shadow_percent=0.0, after="shadow", why="all guards hold")  # fmt: skip
    start = next(entry for entry in journal.entries() if entry.event == "start")
    canary = journal.entries()[-1]
    write_logs(tmp_path / "state", start.time, canary.time)
    told = {"seq": canary.seq, "time": canary.time, "nodes": {"a": "up", "b": "does not answer"}}
    (tmp_path / "state" / "gateway" / "applied.json").write_text(json.dumps(told))
    control.begin(tmp_path / "state")
    return tmp_path / "state"


@pytest.fixture
def steps(tmp_path) -> dict[str, Entry]:
    """The entries of a rollout that is being drained, each at its own time; one request in each."""
    journal = Journal(tmp_path)
    found = {}
    with journal.lock():
        begin(journal, "verify")
        for step in ("canary 100 %", "default", "drain"):
            split = {"drain": {}, "default": {"stable": NEW}}.get(step, {"percent": 100.0})
            found[step] = journal.append(step.split()[0], rollout="x", step=step, **split)
    seqs = (found["canary 100 %"].seq, found["default"].seq, found["default"].seq)
    rows = [row(seq, status=503, study=f"s{t}") | {"t": 10.0 * t} for t, seq in enumerate(seqs)]
    rows.append(row(seqs[-1], version="1.0") | {"t": 100.0})
    (tmp_path / "gateway").mkdir()
    for name in ("requests", "attempts"):
        (tmp_path / "gateway" / f"{name}.jsonl").write_text(
            "".join(json.dumps(it) + "\n" for it in rows)
        )
    return found
