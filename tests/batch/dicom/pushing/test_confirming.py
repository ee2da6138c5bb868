"""What a PACS says that it took is at the PACS, or is told; nothing is sent more than twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")
pytest.importorskip("dicomweb_client", reason="the extra `dicom` is not installed")
pytest.importorskip("pynetdicom", reason="the extra `dicom` is not installed")

from batch.dicom.peers.answers import AlreadyThere, NoAnswer
from batch.dicom.pushing import sending
from sonode.console import UserError
from tests.batch.dicom.conftest import Objects
from tests.batch.dicom.pushing.test_push import NONE, Told, ledgers, messages, pushed, read


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited; it takes no time."""
    waited: list[float] = []
    monkeypatch.setattr(sending.time, "sleep", waited.append)
    return waited


def of_first(made: list[Objects], *kinds: str) -> set[str]:
    return {read(made[0][kind]).SOPInstanceUID for kind in kinds}


def refusing(error: Exception) -> Callable[[Told], None]:
    def refuse(pacs: Told) -> None:
        def answer(uids: list[str]) -> set[str]:
            raise error

        pacs.to_a_list = answer

    return refuse


def first_alone(pacs: Told) -> None:
    pacs.to_a_list = lambda uids: pacs.has_uids.intersection(uids[:1])


def page_of_the_newest(pacs: Told) -> None:
    """What was asked is ignored; the image, asked for last, is in the page."""

    def answer(uids: list[str]) -> set[str]:
        return {*pacs.stored[-1:], uids[-1], "2.25.3"} & {*pacs.has_uids, "2.25.3"}

    pacs.to_a_list = answer


@pytest.mark.parametrize(
    "lists",
    [
        pytest.param(lambda pacs: None, id="understood"),
        pytest.param(first_alone, id="the first alone"),
        pytest.param(page_of_the_newest, id="ignored, and a limited page"),
        pytest.param(refusing(NoAnswer("C-FIND status 0xc000")), id="status 0xc000, HTTP 414"),
        pytest.param(refusing(UserError("HTTP 400")), id="HTTP 400"),
    ],
)
def test_what_a_pacs_took_and_does_not_have_is_told_and_sent_again(
    out: Path, made: list[Objects], waits: list[float], lists: Callable[[Told], None]
) -> None:
    pacs = Told()
    lists(pacs)
    pacs.drops = of_first(made, "sr", "pr")
    done = pushed(out, pacs)
    assert (done.by_status, done.sent) == ({**NONE, "accepted": 4, "unconfirmed": 2}, 6)
    assert done.not_sent == {"2026-11-27": 2}
    pacs.has_uids |= of_first(made, "pr")  # it took its time
    pacs.drops = set()
    done = pushed(out, pacs)
    assert (done.by_status, done.sent) == ({**NONE, "accepted": 6}, 1)
    for ledger in ledgers(out):
        ledger.unlink()  # killed before it
    done = pushed(out, pacs)
    assert (done.by_status, done.sent) == ({**NONE, "present": 6}, 0)


def test_all_that_comes_late_is_waited_for_together(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two studies, to a PACS that has what it took 40 s later: 0.5 + 2 + 10 + 30 s suffice."""
    pacs, clock = Told(), [0.0]
    late = {read(path.read_bytes()).SOPInstanceUID for path in out.rglob("*.dcm")}
    pacs.drops = late

    def sleep(wait_s: float) -> None:
        clock.append(clock[-1] + wait_s)
        if clock[-1] > 40:
            pacs.has_uids |= late

    monkeypatch.setattr(sending.time, "sleep", sleep)
    done = pushed(out, pacs)
    assert (done.by_status, done.not_sent) == ({**NONE, "accepted": 6}, {})
    assert clock == [0, 0.5, 2.5, 12.5, 42.5]
    assert pushed(out, pacs).sent == 0


def test_what_a_pacs_drops_is_sent_twice_and_then_told_alone(
    out: Path, made: list[Objects], waits: list[float]
) -> None:
    pacs = Told()
    pacs.drops = of_first(made, "sr", "pr")
    for night in range(8):
        done = pushed(out, pacs)
        assert done.by_status == {**NONE, "accepted": 4, "unconfirmed": 2}
        assert done.sent == [6, 2, 0, 0, 0, 0, 0, 0][night]
    assert sorted(pacs.stored.count(uid) for uid in {*pacs.stored}) == [1, 1, 1, 1, 2, 2]
    assert len(waits) == 2 * len(sending.LATE_S)  # where something was sent
    assert messages(out, "unconfirmed") == ["sent again"] * 2
    pacs.has_uids |= pacs.drops
    assert pushed(out, pacs).by_status == {**NONE, "accepted": 6}


@pytest.mark.parametrize("has_it", ["yes", "no", "does not tell"])
def test_that_a_pacs_has_an_object_already_is_asked_for(
    out: Path,
    made: list[Objects],
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
    has_it: str,
) -> None:
    def answer(uid: str) -> None:
        if has_it == "yes":
            pacs.has_uids.add(uid)
        raise AlreadyThere

    pacs = Told(answer)
    monkeypatch.setattr(pacs, "tells", lambda: has_it != "does not tell")
    expected = "unconfirmed" if has_it == "no" else "present"
    for _ in range(3):
        done = pushed(out, pacs)
        assert (done.by_status, done.sent) == ({**NONE, expected: 6}, 0)


def test_a_status_of_another_sonode_is_not_taken_for_done(out: Path) -> None:
    pacs = Told()
    pushed(out, pacs)
    (ledger,) = ledgers(out)
    rows = pq.read_table(ledger, partitioning=None).to_pylist()
    schema = pa.schema([(name, pa.string()) for name in rows[0]])
    table = pa.Table.from_pylist([{**row, "status": "queued"} for row in rows], schema=schema)
    pq.write_table(table, ledger)
    done = pushed(out, pacs)
    assert (done.by_status, done.sent) == ({**NONE, "present": 6}, 0)
