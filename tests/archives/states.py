"""State folders that are made up: a journal, and what the gateway has logged."""

from __future__ import annotations

import json
import random
from pathlib import Path

from archives.judging.rollout_policy import Policy
from archives.state.journal import Journal, Release
from sonode import command_line

OLD = Release("1.0", "m-1.0.mar", "0" * 64)
NEW = Release("2.0", "m-2.0.mar", "1" * 64)


def run(*words: object) -> int:
    """As typed; the exit code, 2 for a user's mistake as in `command_line.main`."""
    code = command_line.app([str(word) for word in words], standalone_mode=False)
    return code if isinstance(code, int) else 0


def row(t: float, **facts: object) -> dict[str, object]:
    return {
        "t": t, "id": f"r{t}", "client": "pacs", "study": "s", "arm": "stable", "version": "2.0",
        "seq": int(t), "node": "a", "status": 200, "code": "ok", "ms": 0, "bytes": 1, "tries": 1,
        "scores": "", "labels": "",
    } | facts  # fmt: skip


def begin(journal: Journal, step: str) -> None:
    """The entries of a deployment and of a rollout that begins at `step`."""
    journal.append("deployed", rollout=None, model="m", stable=OLD, serves=[OLD])
    journal.append(
        "start", rollout="x", model="m", stable=OLD, candidate=NEW, step=step,
        heads=[], nodes="nodes.yaml", policy=Policy().model_dump(mode="json"),
    )  # fmt: skip


REFUSED = {"status": 429, "code": "too_many_requests"}


def write_logs(state: Path, start: float, canary: float) -> None:
    chance = random.Random(0)
    requests, attempts = [], []

    def add(
        t: float,
        study: str,
        version: str,
        arm: str,
        status: int,
        name: str | None = None,
        seq: int = 4,
    ) -> None:
        code, ms = ("ok", chance.randrange(20, 60)) if status == 200 else ("unavailable", 3)
        p = chance.betavariate(2, 2)
        row = {"t": t + ms / 1000, "id": name or str(len(attempts)), "study": study, "arm": arm,
               "version": version, "status": status, "code": code, "ms": ms,
               "seq": seq}  # fmt: skip
        scores = f"malignancy={p:.6f}" if status == 200 else ""
        attempts.append(row | {"node": "a", "scores": scores, "labels": "malignancy=benign"})
        if arm != "shadow":
            requests.append(row | {"client": "pacs", "bytes": 1000, "tries": 1})

    add(start - 10, "before", "1.0", "stable", 200, seq=1)
    for number in range(40):
        add(start + 0.01, f"s{number}", "1.0", "stable", 200, f"mirrored-{number}", 3)
        if number < 30:  # the others' shadows were lost
            add(start + 0.01, f"s{number}", "2.0", "shadow", 200, f"mirrored-{number}", 3)
    for number in range(100):
        new = number % 2
        version, arm = ("2.0", "candidate") if new else ("1.0", "stable")
        add(canary + 0.01, f"c{number % 20}", version, arm, 503 if number in (1, 3, 5) else 200)
    for _ in range(7):
        add(canary + 10, "", "1.0", "stable", 200)  # by then the studies are over
        requests.append(requests[1] | {"t": canary + 1, "version": "2.0", "tries": 0} | REFUSED)
    (state / "gateway").mkdir()
    for name, rows in (("requests", requests), ("attempts", attempts)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (state / "gateway" / f"{name}.jsonl").write_text(lines)
