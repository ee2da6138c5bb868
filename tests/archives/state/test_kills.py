"""What is in a state folder and a store, wherever a command is killed: as before, or as after."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from archives.nodes.nodes_file import read_nodes
from archives.nodes.stores import copy_whole
from archives.packing.members import file_sha256
from archives.packing.pack import _place
from archives.serving import serve_with_gateway
from archives.state import tokens_and_keys
from archives.state.journal import Journal
from sonode.files.atomic import beside, sync
from tests.archives.killed import is_killed
from tests.archives.serving.test_serve import ECHO, write_archive

Act = Callable[[Path], object]


def added(folder: Path) -> None:
    assert set(tokens_and_keys.clients(folder)) in ({"a"}, {"a", "b"})
    token = tokens_and_keys.add_client(folder, "b")
    assert tokens_and_keys.clients(folder)["b"] == hashlib.sha256(token.encode()).hexdigest()


def removed(folder: Path) -> None:
    assert set(tokens_and_keys.clients(folder)) in ({"a", "b"}, {"b"})


def prepared(folder: Path) -> None:
    tokens_and_keys.prepare(folder)
    key = tokens_and_keys.study_key(folder)
    tokens_and_keys.prepare(folder)
    assert tokens_and_keys.study_key(folder) == key


def append(folder: Path) -> None:
    journal = Journal(folder)
    with journal.lock():
        journal.append("x", rollout=None)


def appended(folder: Path) -> None:
    before = len(Journal(folder).entries())
    assert before in (1, 2)
    append(folder)
    assert len(Journal(folder).entries()) == before + 1


def copy(folder: Path) -> None:
    copy_whole(folder / "m.mar", folder / "store" / "m.mar")


def copied(folder: Path) -> None:
    there, whole = folder / "store" / "m.mar", (folder / "m.mar").read_bytes()
    assert not there.exists() or there.read_bytes() == whole
    copy(folder)
    assert there.read_bytes() == whole


def archive(folder: Path) -> None:
    (folder / "store").mkdir()
    write_archive(folder / "m.mar", "m", ECHO)


def place(folder: Path) -> None:
    """The end of `sonode pack`."""
    target = folder / "store" / "m-1.0.mar"
    with beside(target) as part:
        part.write_bytes((folder / "m.mar").read_bytes())
        sync(part)
        _place(part, target, "1.0")


def placed(folder: Path) -> None:
    there, whole = folder / "store" / "m-1.0.mar", (folder / "m.mar").read_bytes()
    assert not there.exists() or there.read_bytes() == whole
    place(folder)
    assert there.read_bytes() == whole


def begin(folder: Path) -> None:
    """As `sonode serve --gateway-port` where there was no gateway yet."""
    node = SimpleNamespace(
        models={"m": "m.mar"}, store=folder, run_dir=folder / "run",
        inference_url="http://127.0.0.1:1", management_url="http://127.0.0.1:2",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serve_with_gateway, "Supervisor", lambda *_: nullcontext())
        with serve_with_gateway.gateway_before(node, None, folder / "state"):  # type: ignore[arg-type]
            pass


def begun(folder: Path) -> None:
    state = folder / "state"
    if serve_with_gateway.journalled(state):
        assert file_sha256(state / "archives" / "m.mar") == file_sha256(folder / "m.mar")
    begin(folder)
    assert serve_with_gateway.journalled(state) == {"m": "m.mar"}
    assert len(Journal(state).entries()) == 1
    assert read_nodes(state / "nodes.yaml")[0].store == folder


def add(*names: str) -> Act:
    return lambda folder: [tokens_and_keys.add_client(folder, name) for name in names]


@pytest.mark.parametrize(
    ("before", "act", "check", "acts"),
    [
        (add("a"), add("b"), added, 3),
        (add("a", "b"), lambda folder: tokens_and_keys.remove_client(folder, "a"), removed, 3),
        (lambda _: None, tokens_and_keys.prepare, prepared, 4),
        (append, append, appended, 2),
        (archive, copy, copied, 4),
        (archive, place, placed, 4),
        (archive, begin, begun, 12),
    ],
    ids=["add", "remove", "prepare", "append", "copy", "place", "begin"],
)
def test_killed_before_each_act(
    tmp_path: Path, before: Act, act: Act, check: Act, acts: int
) -> None:
    step = 1
    while True:
        folder = tmp_path / str(step)
        folder.mkdir()
        before(folder)
        killed = is_killed(lambda folder=folder: act(folder), folder, step)  # type: ignore[misc]
        check(folder)
        if not killed:
            break
        step += 1
    assert step > acts
