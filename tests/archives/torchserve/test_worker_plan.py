import os
from pathlib import Path

import pytest

from archives.torchserve.worker_plan import Plan, plan

NOTHING = "exit 9"  # what nvidia-smi does without its driver


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with a PATH of its own and no settings about GPUs."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return monkeypatch


def on(machine: pytest.MonkeyPatch, cores: int, nvidia_smi: str = "") -> Plan:
    machine.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    machine.setattr(os, "cpu_count", lambda: cores)
    if nvidia_smi:
        script = Path(os.environ["PATH"]) / "nvidia-smi"
        script.write_text(f"#!/bin/sh\n{nvidia_smi}\n")
        script.chmod(0o755)
    return plan()


@pytest.mark.parametrize(
    ("cores", "workers", "threads"), [(1, 1, 1), (2, 2, 1), (3, 2, 1), (16, 2, 8)]
)
@pytest.mark.parametrize("nvidia_smi", ["", NOTHING])
def test_two_workers_halve_the_cores(
    cores: int, workers: int, threads: int, nvidia_smi: str, machine: pytest.MonkeyPatch
) -> None:
    found = on(machine, cores, nvidia_smi)
    assert (found.workers, found.threads, found.batch_size) == (workers, threads, 4 * threads)


@pytest.mark.parametrize(
    ("gpus", "cores", "threads"), [(1, 16, 16), (2, 16, 8), (3, 16, 5), (8, 4, 1)]
)
def test_each_gpu_has_a_worker_with_its_share_of_the_cores(
    gpus: int, cores: int, threads: int, machine: pytest.MonkeyPatch
) -> None:
    found = on(machine, cores, "\n".join(f"echo {index}" for index in range(gpus)))
    assert (found.workers, found.threads) == (gpus, threads)
    assert found.registration() == {
        "initial_workers": str(gpus),
        "batch_size": "32",
        "max_batch_delay": "2",
    }


@pytest.mark.parametrize(
    ("visible", "workers", "threads", "delay_ms"),
    [
        *(("2", 1, 12, 2), ("0,3", 2, 6, 2), ("0,1,3", 3, 4, 2), ("0,1,2,3,4,5", 4, 3, 2)),
        *(("", 2, 6, 1), ("-1", 2, 6, 1)),  # all of them: the plan is that of the CPU
    ],
)
def test_gpus_that_are_hidden_do_not_count(
    visible: str, workers: int, threads: int, delay_ms: int, machine: pytest.MonkeyPatch
) -> None:
    machine.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = on(machine, 12, "echo 0; echo 1; echo 2; echo 3")
    assert (found.workers, found.threads) == (workers, threads)
    assert found.max_batch_delay_ms == delay_ms
