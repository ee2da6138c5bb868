"""Each box is in one night, whatever runs at once and however many nights there are."""

from __future__ import annotations

import time
from datetime import date, timedelta

import pyarrow as pa
import pytest

pytest.importorskip("dicomweb_client", reason="the extra `dicom` is not installed")

from batch.dicom.pulling import manifest
from batch.night.register import REFUSED, Register
from batch.results.schema import parquet
from batch.storage import objects
from sonode.console import UserError

DAY = date(2026, 11, 27)


def rows(*numbers: int, study: str = "1.1") -> pa.Table:
    box = {"roi_x_min": 0, "roi_y_min": 0, "roi_x_max": 4, "roi_y_max": 4}
    made = [{"study_uid": study, "instance_uid": f"1.2.{number}", **box} for number in numbers]
    return pa.Table.from_pylist(made, schema=manifest.table([]).schema)


def images(folder: str, day: date) -> list[str]:
    name = Register(folder).nights[day].manifest
    table = parquet(objects.read(objects.join(folder, name)).data).read()
    return [uid.removeprefix("1.2.") for uid in table["instance_uid"].to_pylist()]


def test_a_night_has_what_no_other_has_and_keeps_it(folder: str) -> None:
    out = objects.join(folder, "night")
    Register(out).claim(DAY, rows(1, 2))
    Register(out).claim(DAY + timedelta(days=1), rows(1, 2, 3))
    Register(out).claim(DAY, rows(4, 5))  # it has its own already
    assert images(out, DAY) == ["1", "2"]
    assert images(out, DAY + timedelta(days=1)) == ["3"]
    Register(out).claim(DAY + timedelta(days=2), rows(1, study="1.9"))  # the PACS has moved it
    assert images(out, DAY + timedelta(days=2)) == ["1"]


@pytest.mark.parametrize("other", [DAY, DAY + timedelta(days=1)])
def test_of_two_at_once_one_gets_a_box(folder: str, other: date) -> None:
    """Both read the register before the other has written it."""
    out = objects.join(folder, "night")
    one, two = Register(out), Register(out)
    one.claim(DAY, rows(1, 2))
    two.claim(other, rows(2, 3))
    assert images(out, DAY) == ["1", "2"]
    assert images(out, other) == (["1", "2"] if other == DAY else ["3"])
    one.note(DAY, scored=True)
    two.note(other, not_sent=3)
    found = Register(out).nights
    assert (found[DAY].scored, found[other].not_sent) == (True, 3)


def test_what_was_not_told_is_kept_and_a_refusal_is_told_once(folder: str) -> None:
    out = objects.join(folder, "night")
    Register(out).claim(DAY, rows(1), ["1.2.8"], "too few")
    first = Register(out).nights[DAY]
    assert first.faults == {"pull": f"too few, {REFUSED}"}
    Register(out).note(DAY, faults={"score": "images failed"}, scored=True)
    assert [*Register(out).nights[DAY].faults] == ["pull", "score"]
    Register(out).note(DAY, faults={"score": None})
    assert [*Register(out).nights[DAY].faults] == ["pull"]
    Register(out).note(DAY, faults={"pull": None})
    assert Register(out).nights[DAY].faults == {}

    again, new = DAY + timedelta(days=1), DAY + timedelta(days=2)
    Register(out).claim(again, rows(1), ["1.2.8"])
    assert Register(out).nights[again].faults == {}
    Register(out).claim(new, rows(1), ["1.2.8", "1.2.9"])
    assert Register(out).nights[new].faults == {"pull": REFUSED}
    assert "1.2.8" not in str(Register(out).nights)


def test_what_another_run_has_to_tell_stays(folder: str) -> None:
    """Both read the register before the other has written it."""
    out = objects.join(folder, "night")
    Register(out).claim(DAY, rows(1), ["1.2.8"])
    one, two = Register(out), Register(out)
    one.note(DAY, faults={"score": "images failed"})
    two.note(DAY, faults={"pull": None, "push": "not sent"})
    assert Register(out).nights[DAY].faults == {"score": "images failed", "push": "not sent"}


def test_one_that_is_damaged_is_named(folder: str) -> None:
    objects.write(objects.join(folder, "nights/register.parquet"), b"PAR1")
    with pytest.raises(UserError, match=r"register\.parquet: not a register"):
        Register(folder)


def test_a_thousand_nights(folder: str) -> None:
    """A night's part of the work with the register, at 100 boxes a night."""
    out = objects.join(folder, "night")
    register = Register(out)
    everything = rows(*range(100_000))
    register.claim(DAY, everything.slice(0, 100))
    register.nights |= {DAY - timedelta(days=it): register.nights[DAY] for it in range(1, 1000)}
    register.claim(DAY + timedelta(days=1), everything)
    begun = time.process_time()
    fresh = Register(out)
    fresh.claim(DAY + timedelta(days=2), rows(100_000))
    for facts in ({"scored": True}, {"closed": True}):
        fresh.note(DAY + timedelta(days=2), **facts)
    print(f"CPU: {time.process_time() - begun:.2f} s")
    assert images(out, DAY + timedelta(days=2)) == ["100000"]
    assert len(fresh.nights) == 1002
