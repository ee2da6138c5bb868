"""archives/state/clock.py: how long ago an entry was written, with clocks that are set at will."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from archives.state import clock
from archives.state.journal import Entry


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Seconds since the boot, and of the wall clock; turn them."""
    now = {"boottime": 100.0, "wall": 5000.0}
    monkeypatch.setattr(clock, "_boot", lambda: "this boot")
    monkeypatch.setattr(time, "clock_gettime", lambda which: now["boottime"])
    monkeypatch.setattr(time, "time", lambda: now["wall"])
    return now


def written(now: dict[str, float], **facts: object) -> Entry:
    return Entry(1, now["wall"], None, "canary", {clock.CLOCK: clock.stamp()} | facts)


@pytest.mark.parametrize("jump", [-600, 0, 86_400])
def test_within_a_boot_the_wall_clock_may_be_set(clocks: dict[str, float], jump: float) -> None:
    entry = written(clocks)
    clocks["boottime"] += 30
    clocks["wall"] += 30 + jump
    assert clock.elapsed(entry) == 30


def test_after_another_boot_the_wall_clock_says_it_and_never_less_than_nothing(
    clocks: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = written(clocks)
    monkeypatch.setattr(clock, "_boot", lambda: "the next")
    clocks["boottime"] = 7
    clocks["wall"] += 250
    assert clock.elapsed(entry) == 250
    clocks["wall"] -= 600
    assert clock.elapsed(entry) == 0


def test_the_machine_s_own_clock_runs_on_and_names_its_boot() -> None:
    first, second = clock.stamp(), clock.stamp()
    assert first["boot"] == second["boot"]
    assert len(first["boot"]) == 36
    assert 0 <= second["s"] - first["s"] < 60
    assert 0 <= clock.elapsed(Entry(1, 0.0, None, "canary", {clock.CLOCK: first})) < 60


def test_a_machine_that_does_not_name_its_boot_goes_by_the_wall_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a container without /proc/sys: its next boot is not to be taken for this one."""

    def nothing_there(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", nothing_there)
    clock._boot.cache_clear()
    try:
        entry = Entry(1, time.time() - 40, None, "canary", {clock.CLOCK: clock.stamp()})
        assert 40 <= clock.elapsed(entry) < 100
    finally:
        clock._boot.cache_clear()


@pytest.mark.skipif(not shutil.which("faketime"), reason="needs faketime")
def test_with_a_real_clock_that_is_set_back() -> None:
    """The process that looks has a wall clock of 600 s ago; the entry was written just now."""
    stamp = clock.stamp()
    code = (
        "import time; from archives.state import clock; from archives.state.journal import Entry; "
        f"e = Entry(1, {time.time()}, None, 'x', {{'clock': {stamp}}}); "
        "print(time.time() - e.time, clock.elapsed(e))"
    )
    environment = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "PATH": "/usr/bin:/bin"}
    told = subprocess.run(
        ["faketime", "-f", "-600s", sys.executable, "-c", code],
        capture_output=True, text=True, check=True, env=environment,
    ).stdout.split()  # fmt: skip
    wall, elapsed = map(float, told)
    assert -600 <= wall < -500
    assert 0 <= elapsed < 100
