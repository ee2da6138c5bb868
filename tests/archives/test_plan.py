import os
import shutil

import pytest

from archives.plan import Plan, plan


def on(monkeypatch: pytest.MonkeyPatch, cores: int, *, gpu: bool = False) -> Plan:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi" if gpu else None)
    return plan()


@pytest.mark.parametrize(
    ("cores", "workers", "threads"), [(1, 1, 1), (2, 2, 1), (3, 2, 1), (16, 2, 8)]
)
def test_two_workers_halve_the_cores(
    cores: int, workers: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = on(monkeypatch, cores)
    assert (found.workers, found.threads, found.batch_size) == (workers, threads, 4 * threads)


def test_a_gpu_has_one_worker_that_decodes_on_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    found = on(monkeypatch, 16, gpu=True)
    assert (found.workers, found.threads) == (1, 16)
    assert found.registration() == {
        "initial_workers": "1",
        "batch_size": "32",
        "max_batch_delay": "2",
    }
