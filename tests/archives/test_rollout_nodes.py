"""How a node's answers are held against an archive's golden examples, by hand."""

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from archives import rollout_nodes
from archives.rollout_nodes import Refused
from sonode_console import UserError

ANSWERED = {
    "alnm": {"probability": 0.303},
    "subtype": {"probability": 0.7, "distribution": {"A": 0.7, "B": 0.25, "C": 0.05}},
}


@pytest.mark.parametrize(
    ("subtype", "found"),
    [
        (0.7, 0.003),  # an archive of an earlier version
        ({"A": 0.7, "B": 0.25, "C": 0.05}, 0.003),
        ({"A": 0.7, "B": 0.246, "C": 0.054}, 0.004),
        ({"A": 0.25, "B": 0.7, "C": 0.05}, None),
    ],
)
def test_every_label_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtype: object, found: float | None
) -> None:
    example = {"image": "0.png", "roi": [0, 0, 9, 9]}
    expected = {"alnm": 0.3, "subtype": subtype}
    with zipfile.ZipFile(tmp_path / "m.mar", "w") as archive:
        archive.writestr("golden/0.png", b"")
        archive.writestr("golden/golden.json", json.dumps([example | {"probabilities": expected}]))
    answer = httpx.Response(200, json={"heads": ANSWERED})
    monkeypatch.setattr(rollout_nodes, "_post", lambda *_: answer)
    settings = SimpleNamespace(inference="http://127.0.0.1:9")
    node: Any = SimpleNamespace(name="left", archives=tmp_path, settings=settings)
    release: Any = SimpleNamespace(version="2.0", file="m.mar")
    if found is None:
        with pytest.raises(Refused, match=r"node left, 0\.png, head subtype: .* differs by 0\.45"):
            rollout_nodes._golden_difference(node, "m", release, 0.01)
    else:
        largest = rollout_nodes._golden_difference(node, "m", release, 0.01)
        assert largest == pytest.approx(found)


def test_a_full_temporary_folder_or_a_kill_is_no_word_about_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "m.mar"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("weights", bytes(50_000_000))

    def outcome(free: int, code: int) -> None:
        monkeypatch.setattr(
            rollout_nodes.shutil, "disk_usage", lambda _: SimpleNamespace(free=free)
        )
        monkeypatch.setattr(rollout_nodes, "run_sonode", lambda *_: code)
        rollout_nodes.verify(archive)

    with pytest.raises(UserError, match=r"80 MB free, and 82 MB are needed"):
        outcome(80_000_000, 0)
    with pytest.raises(UserError, match="ended by signal 9"):
        outcome(90_000_000, -9)
    with pytest.raises(Refused):
        outcome(90_000_000, 2)
    outcome(90_000_000, 0)


def test_a_node_that_answers_slowly_about_itself_is_no_bad_version(tmp_path: Path) -> None:
    def slow(*_: object) -> None:
        raise httpx.ReadTimeout("")

    node: Any = SimpleNamespace(name="a", register=slow, healthy=lambda: True)
    release: Any = SimpleNamespace(version="2.0", file="m.mar")
    assert rollout_nodes.register_and_prove(node, "m", release, 0.01) is None
