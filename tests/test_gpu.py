"""What a GPU is trusted with, on the one of this machine; where there is none, on the CPU or not.

`make gpu` runs these, and the engines' and the service's own tests, on a GPU.
"""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import torch

from archives.packing.loader import load_archive
from archives.packing.pack import pack
from archives.torchserve.server_node import ServerNode
from archives.torchserve.worker_plan import count_gpus, plan
from handlers.engines.choose import choose_device
from handlers.engines.torch_engines import AutocastEngine, EagerEngine
from model_def import checkpoint
from tests.benchmarks.servers import await_workers
from tests.command_line import ROOT, sonode
from tests.conftest import TRUNK, encode
from tests.servers import SERVERS
from train.cohorts.cohort import Cohort

pytestmark = pytest.mark.slow

DEVICE = choose_device(0)
gpu = pytest.mark.skipif(DEVICE.type != "cuda", reason="no CUDA device")
ENGINES = [
    "eager",
    pytest.param("cuda", marks=gpu),
    pytest.param(
        "compile", marks=pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
    ),
]


@pytest.fixture(scope="module")
def resnet_archive(resnet_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(resnet_folder, "resnet", "1.0", tmp_path_factory.mktemp("store"))


@pytest.mark.filterwarnings("ignore")  # of torch's compiler, many
@pytest.mark.parametrize("engine", ENGINES)
def test_it_reproduces_the_golden_examples_and_draws(
    engine: str, resnet_archive: Path, frame: object
) -> None:
    png = encode(frame)  # type: ignore[arg-type]
    rows = [{"image": png, "roi": f"{x},9,{x + 40},70", "explain": "gradcam"} for x in range(40)]
    with load_archive(resnet_archive, {"engine": engine}) as loaded:  # refuses what differs
        outcomes = loaded.score(rows)
    assert {outcome.status for outcome in outcomes} == {200}
    assert DEVICE.type in outcomes[0].body["model"]["engine"]


def test_two_batches_in_flight_do_not_meet(resnet_folder: Path) -> None:
    """Each of many batches, two at a time, has the probabilities of float32."""
    network, card = checkpoint.load(resnet_folder)
    size = card.preprocessing.size
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.rand((16, size, size), generator=generator) * (10 + 20 * number)).to(torch.uint8)
        for number in range(12)
    ]
    with torch.no_grad():
        network.heads.weight.div_(8)
    reference = EagerEngine(network, card.preprocessing, DEVICE)
    expected = [reference.forward(batch).logits_BL.sigmoid() for batch in batches]
    engine = AutocastEngine(network, card.preprocessing, DEVICE)
    with ThreadPoolExecutor(engine.max_concurrency) as pool:
        found = [forward.logits_BL.sigmoid() for forward in pool.map(engine.forward, batches)]
    assert (
        max(float((one - two).abs().max()) for one, two in zip(found, expected, strict=True))
        <= engine.tolerance
    )


@gpu
def test_crops_are_copied_from_pinned_memory(resnet_folder: Path) -> None:
    network, card = checkpoint.load(resnet_folder)
    engine = AutocastEngine(network, card.preprocessing, DEVICE)
    crops_BSS = torch.zeros((16, card.preprocessing.size, card.preprocessing.size)).byte()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        engine.forward(crops_BSS)
    assert "Memcpy HtoD (Pinned -> Device)" in {event.name for event in profile.events()}


@gpu
def test_a_worker_whose_context_is_lost_ends_at_the_next_batch(resnet_archive: Path) -> None:
    code = f"""
import sys
import torch
from pathlib import Path
from archives.packing.loader import load_archive
from tests.conftest import encode
from tests.handlers.contexts import FakeContext
import numpy as np

with load_archive(Path({str(resnet_archive)!r}), {{"engine": "cuda"}}) as loaded:
    service = loaded.service
    service.telemetry.record = lambda *its: None
    def fail(prepared):
        beyond = torch.ones(1, device="cuda", dtype=torch.long)
        print(torch.zeros(1, device="cuda")[beyond].item())  # a device-side assert
    service.inference = fail
    for _ in range(2):
        context = FakeContext([{{}}])
        print(service.handle([{{"body": encode(np.eye(40, dtype=np.uint8))}}], context), flush=True)
print("still there")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 70, done.stderr
    assert done.stdout.count("inference_failed") == len(done.stdout.splitlines()) == 1


@pytest.mark.live
@pytest.mark.parametrize("kind", SERVERS)
def test_each_gpu_has_a_worker(
    kind: type[ServerNode], resnet_archive: Path, tmp_path: Path
) -> None:
    engine = "cuda" if DEVICE.type == "cuda" else "eager"
    assert count_gpus() == torch.cuda.device_count()
    store, models, handler = resnet_archive.parent, {"m": resnet_archive.name}, {"engine": engine}
    with kind(store, models, tmp_path / "node", handler=handler) as node:
        await_workers(node, plan().workers)
        answer = httpx.post(
            f"{node.inference_url}/predictions/m",
            content=encode(torch.eye(80).mul(255).byte().numpy()),
            headers={"Authorization": f"Bearer {node.token()}"},
            trust_env=False,
        )
        assert answer.json()["model"]["engine"].startswith(engine)
        if count_gpus():
            command = ["nvidia-smi", "--query-compute-apps=gpu_uuid", "--format=csv,noheader"]
            busy = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            assert len({*busy.split()}) >= count_gpus()


def test_an_epoch_of_training_gives_an_archive(phantom: Cohort, tmp_path: Path) -> None:
    kind = "gpu" if DEVICE.type == "cuda" else "cpu"
    flags = [f"--trainer.accelerator={kind}", "--trainer.devices=1", "--trainer.max_epochs=1"]
    flags += ["--data.split_seed=698"]  # each part has patients of the phantom
    flags += [f"--model.architecture={TRUNK}", "--model.preprocessing.size=64"]
    config = ROOT / "train" / "configs" / "pretrain.yaml"
    command = ["train", "fit", "--config", config, "--data.cohort", phantom.folder]
    done = sonode(*command, "--out", tmp_path / "run", *flags)
    assert done.returncode == 0, done.stderr
    archive = pack(tmp_path / "run" / "checkpoint", "trained", "1.0", tmp_path / "store")
    with load_archive(archive):
        pass
