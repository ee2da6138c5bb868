"""The trunk in OpenVINO on the CPU, bfloat16 where the CPU has it.

One stream per thread, one row per request: a core gets from one row what it gets from sixteen
(measured), every core is busy as soon as there is a row for it, and a row's features cannot depend
on its neighbours.

Shapes in names as in `handlers.engines.base`.
"""

from __future__ import annotations

import importlib.util
import queue
import sys
import warnings
from typing import Any

import torch
from torch import nn

from handlers.engines.base import (
    BF16_TOLERANCE,
    FP32_TOLERANCE,
    EngineUnavailable,
    Forward,
    logits_of,
)
from model_def.network import Network
from model_def.preprocessing import Preprocessing, normalise

# `import openvino` tells Google Analytics of itself by this package, and writes an id into the home
# folder; without it OpenVINO has a stub that sends nothing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def installed() -> bool:
    """Whether the extra is there."""
    return importlib.util.find_spec("openvino") is not None


class OpenVINOEngine:
    """See the module, and `handlers.engines.base` for what an engine is."""

    micro_batch = 1

    def __init__(self, network: Network, facts: Preprocessing, threads: int, *, bf16: bool) -> None:
        try:
            import openvino as ov
        except ImportError as error:
            raise EngineUnavailable(
                "engine openvino: OpenVINO is not installed; run pip install -e '.[cpu]'"
            ) from error
        self.network = network
        # What each grey becomes in each channel. Looked up, since torch would share the work on one
        # image among threads, which wait for the next one in a loop that keeps their core busy.
        greys_1VV = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
        self._values_3V = normalise(greys_1VV, facts).view(3, 256).numpy()
        # One more than streams: none is idle while what comes before and after a pass is done.
        self.max_concurrency = threads + 1
        self.tolerance = BF16_TOLERANCE if bf16 else FP32_TOLERANCE
        self.name = f"openvino-cpu-{'bf16' if bf16 else 'fp32'}"
        self._compiled = ov.Core().compile_model(
            trunk_graph(network.trunk, facts.size),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
                "NUM_STREAMS": threads,
                "INFERENCE_NUM_THREADS": threads,
                # The workers of a node would all pin themselves to the same first cores.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        # A process's first call sets up what OpenVINO knows of numpy, within a lock of its own that
        # it keeps while it lets go of Python's: of two threads that came first, each would wait for
        # the other without end. So one pass runs here, where there is one thread.
        self.forward(torch.zeros((1, facts.size, facts.size), dtype=torch.uint8))

    def forward(self, crops_BSS: torch.Tensor) -> Forward:
        """See `handlers.engines.choose.Engine`; rows run on as many streams as there are."""
        running = []
        for crop_SS in crops_BSS.numpy():
            image_13SS = self._values_3V.take(crop_SS, axis=1)[None]
            request = self._request()
            request.start_async({0: image_13SS}, share_inputs=True)  # kept alive by the request
            running.append(request)
        features = []
        for request in running:
            request.wait()
            features.append(torch.from_numpy(request.get_output_tensor().data.copy()))
            self._idle.put(request)
        features_BChw = torch.cat(features)
        with torch.inference_mode():
            return Forward(logits_of(self.network, features_BChw), features_BChw)

    def _request(self) -> Any:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return self._compiled.create_infer_request()


def trunk_graph(trunk: nn.Module, size: int) -> Any:
    """The trunk as an `openvino.Model`: normalised image (1, 3, S, S) -> features (1, C, h, w).

    By OpenVINO's own frontend. `openvino.convert_model` is the same and more: it traces twice, and
    reports its use to Intel over the network.

    Raises EngineUnavailable: OpenVINO lacks a layer of the trunk.
    """
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    image_13SS = torch.zeros(1, 3, size, size)
    with torch.no_grad(), warnings.catch_warnings():
        # OpenVINO reads nothing else as fast; and padding may depend on the size, which is fixed.
        warnings.filterwarnings("ignore", "`torch.jit.trace", FutureWarning)
        warnings.filterwarnings("ignore", category=torch.jit._trace.TracerWarning)
        traced = torch.jit.trace(trunk, image_13SS, check_trace=False)  # type: ignore[no-untyped-call]
    decoder = TorchScriptPythonDecoder(traced)  # read until the graph is there
    frontend = FrontEndManager().load_by_framework("pytorch")
    try:
        graph = frontend.convert(frontend.load(decoder))
        graph.reshape([1, 3, size, size])
    except Exception as error:  # OpenVINO has a dozen kinds
        raise EngineUnavailable(
            "engine openvino: it cannot take over this network "
            f"({str(error).splitlines()[-1].strip()}); choose another engine"
        ) from error
    return graph
