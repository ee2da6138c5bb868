"""How a node's answers are held against an archive's golden examples, by hand."""

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import httpx
import pytest

from archives.nodes.nodes import OtherBytesError
from archives.rollout import nodes
from archives.rollout.nodes import Refused
from sonode.console import UserError

ANSWERED = {
    "alnm": {"probability": 0.303},
    "subtype": {"probability": 0.7, "distribution": {"A": 0.7, "B": 0.25, "C": 0.05}},
}


@pytest.mark.parametrize(
    ("subtype", "found"),
    [
        ({"A": 0.7, "B": 0.25, "C": 0.05}, 0.003),
        ({"A": 0.7, "B": 0.246, "C": 0.054}, 0.004),
        ({"A": 0.25, "B": 0.7, "C": 0.05}, None),
    ],
)
def test_every_label_counts(tmp_path: Path, subtype: object, found: float | None) -> None:
    def difference() -> float:
        return golden_difference(tmp_path, {"alnm": 0.3, "subtype": subtype}, {})

    if found is None:
        with pytest.raises(Refused, match=r"node left, 0\.png, head subtype: .*0\.45"):
            difference()
    else:
        assert difference() == pytest.approx(found)


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        # What a worker has loaded is the node's matter: `verify` has seen what the archive tells.
        (
            {"model": {"sha256": "b" * 64}, "heads": {}},
            OtherBytesError,
            r"^node left: its worker of 2\.0 has loaded other bytes \(sha256 b{12}\) than .*a{12}",
        ),
        ({"heads": {}}, Refused, r"node left, 0\.png: its answer is not a sonode result"),
        ({"model": None}, Refused, r"its answer is not a sonode result"),
        ({"heads": {"alnm": {"probability": float("nan")}}}, Refused, "differs by nan"),
    ],
)
def test_an_answer_of_other_bytes_or_without_a_result(
    tmp_path: Path, changed: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        golden_difference(tmp_path, {"alnm": 0.3}, changed)


def golden_difference(
    folder: Path, expected: dict[str, object], changed: dict[str, object]
) -> float:
    """Of one example, with ANSWERED for it, but for what is `changed` in the answer."""
    example = {"image": "0.png", "roi": [0, 0, 9, 9], "probabilities": expected}
    with zipfile.ZipFile(folder / "m.mar", "w") as archive:
        archive.writestr("golden/0.png", b"")
        archive.writestr("golden/golden.json", json.dumps([example]))
    answer = {"model": {"sha256": "a" * 64}, "heads": ANSWERED} | changed
    content = json.dumps(answer).encode()
    node: Any = SimpleNamespace(
        name="left", archives=folder, predict=lambda *_: httpx.Response(200, content=content)
    )
    release: Any = SimpleNamespace(version="2.0", file="m.mar", sha256="a" * 64)
    return nodes.golden_difference(node, "m", release, 0.01)


def test_a_full_temporary_folder_or_a_kill_is_no_verdict_on_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "m.mar"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("weights", bytes(50_000_000))

    def outcome(free: int, code: int, said: str = "error: damaged") -> None:
        def run(words: object, log: IO[str], timeout_s: float) -> int:
            log.write(said)
            return code

        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
        monkeypatch.setattr(nodes, "run_sonode", run)
        nodes.verify(archive)

    with pytest.raises(UserError, match=r"80 MB free.* 82 MB"):
        outcome(80_000_000, 0)
    with pytest.raises(UserError, match="signal 9"):
        outcome(90_000_000, -9)
    with pytest.raises(Refused):
        outcome(90_000_000, 2)
    with pytest.raises(UserError, match=r"^verify: ARCHIVE: .* No space left on device"):
        outcome(
            90_000_000, 2, "error: ARCHIVE: its service does not start: No space left on device"
        )
    outcome(90_000_000, 0)


def test_verify_that_does_not_end_is_ended_and_is_no_verdict_on_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process ends within a millisecond of its start."""
    (tmp_path / "m.mar").touch()
    monkeypatch.setattr(nodes, "_check_space", lambda _: None)
    monkeypatch.setattr(nodes, "VERIFY_TIMEOUT_S", 0.001)
    with pytest.raises(UserError, match=r"^verify: not done after 0\.001 s"):
        nodes.verify(tmp_path / "m.mar")


STARTS_NOT = {"code": 500, "type": "InternalServerException", "message": "Failed to start workers"}
NO_ROOM = STARTS_NOT | {"message": "Failed to save model: m-2.0.mar"}


@pytest.mark.parametrize(
    ("status", "body", "logged", "free", "lacks"),
    [
        (500, NO_ROOM, "", 10**12, "could not unpack"),
        (507, STARTS_NOT, "", 10**12, "too little memory"),
        (500, STARTS_NOT, "OSError: [Errno 28] No space left on device: 'x'", 10**12, "No space"),
        (500, STARTS_NOT, "OSError: [Errno 24] Too many open files", 10**12, "Too many open"),
        (500, STARTS_NOT, "RuntimeError: CUDA out of memory. Tried", 10**12, "out of memory"),
        (500, STARTS_NOT, "DefaultCPUAllocator: can't allocate memory", 10**12, "can't allocate"),
        (500, STARTS_NOT, "[Errno 98] Address already in use", 10**12, "Address already in use"),
        (500, STARTS_NOT, "Backend worker did not respond in given time", 10**12, "in given time"),
        (500, STARTS_NOT, "", 1_000_000, r"1 MB free, but 2\.0 needs 32 MB"),
        (500, STARTS_NOT, "RuntimeError: does not load", 10**12, None),
        (400, {"message": "Failed to read manifest"}, "", 10**12, None),
    ],
)
def test_what_a_nodes_machine_lacks_is_no_verdict_on_the_archive(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    body: dict[str, object],
    logged: str,
    free: int,
    lacks: str | None,
) -> None:
    log = tmp_path / "logs" / "model_log.log"
    log.parent.mkdir()
    log.write_text("OSError: [Errno 28] No space left on device, of another day\n" * 3)

    def refuse(*_: object) -> None:
        with log.open("a") as file:
            file.write(f"{logged}\n")
        httpx.Response(
            status, json=body, request=httpx.Request("POST", "http://a")
        ).raise_for_status()

    (tmp_path / "m.mar").write_bytes(b"")
    settings = SimpleNamespace(run_dir=tmp_path)
    node: Any = SimpleNamespace(name="a", register=refuse, archives=tmp_path, settings=settings)
    release: Any = SimpleNamespace(version="2.0", file="m.mar")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(
        UserError if lacks else Refused, match=lacks or "does not start 2.0"
    ) as told:
        nodes.register_and_prove(node, "m", release, 0.01)
    assert f"TorchServe answers {status}" in str(told.value)


def test_a_node_that_answers_slowly_about_itself_is_no_bad_version(tmp_path: Path) -> None:
    def slow(*_: object) -> None:
        raise httpx.ReadTimeout("")

    settings = SimpleNamespace(run_dir=tmp_path)
    node: Any = SimpleNamespace(name="a", register=slow, healthy=lambda: True, settings=settings)
    release: Any = SimpleNamespace(version="2.0", file="m.mar")
    assert nodes.register_and_prove(node, "m", release, 0.01) is None
