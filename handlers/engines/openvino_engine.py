"""The trunk in OpenVINO on the CPU, bfloat16 where the CPU has it.

One stream per thread, one row per request: a core gets from one row what it gets from sixteen
(measured), every core is busy as soon as there is a row for it, and a row's features cannot depend
on its neighbours.

The graph is laid down operation by operation. `openvino.convert_model` would do it from a traced
network, but takes up to 9 s of a core for a ResNet50 where this takes a tenth of one, and reports
its use to Intel over the network.

Shapes in names as in `handlers.engines.base`.
"""

from __future__ import annotations

import importlib.util
import operator
import queue
from typing import Any, cast

import torch
from torch import fx, nn

from handlers.engines.base import (
    BF16_TOLERANCE,
    FP32_TOLERANCE,
    EngineUnavailable,
    Forward,
    logits_of,
)
from model_def.network import Network
from model_def.preprocessing import Preprocessing, normalise


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
                "engine openvino: OpenVINO is not installed; run pip install 'sonode[cpu]'"
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
            trunk_graph(network, facts.size),
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


def trunk_graph(network: Network, size: int) -> Any:
    """The trunk as an `openvino.Model`: normalised image (1, 3, S, S) -> features (1, C, h, w).

    Raises:
        EngineUnavailable: a layer that ResNets do not have.
    """
    import openvino as ov
    from openvino import opset8 as ops

    def constant(tensor: torch.Tensor) -> Any:
        # The opset's own makes a Python list of each array: half a second more for a ResNet18.
        return ov.op.Constant(tensor.contiguous().numpy())

    def batch_norm(value: Any, layer: nn.BatchNorm2d) -> Any:
        assert layer.running_mean is not None and layer.running_var is not None
        scale_C = layer.weight / torch.sqrt(layer.running_var + layer.eps)
        shift_C = layer.bias - layer.running_mean * scale_C
        scaled = ops.multiply(value, constant(scale_C.view(1, -1, 1, 1)))
        return ops.add(scaled, constant(shift_C.view(1, -1, 1, 1)))

    def convolution(value: Any, layer: nn.Conv2d) -> Any:
        assert layer.groups == 1 and layer.bias is None
        padding = list(layer.padding)
        return ops.convolution(
            value,
            constant(layer.weight),
            list(layer.stride),
            padding,
            padding,
            list(layer.dilation),
        )

    def max_pool(value: Any, layer: nn.MaxPool2d) -> Any:
        # One number for both sides, in every ResNet.
        stride, padding, kernel = (
            [cast(int, side)] * 2 for side in (layer.stride, layer.padding, layer.kernel_size)
        )
        return ops.max_pool(value, stride, [1, 1], padding, padding, kernel).output(0)

    layers = {
        nn.Conv2d: convolution,
        nn.BatchNorm2d: batch_norm,
        nn.ReLU: lambda value, _: ops.relu(value),
        nn.MaxPool2d: max_pool,
        nn.Identity: lambda value, _: value,
    }
    traced = fx.symbolic_trace(network.trunk)
    values: dict[fx.Node, Any] = {}
    image_13SS = ops.parameter([1, 3, size, size], ov.Type.f32)
    with torch.no_grad():
        for node in traced.graph.nodes:
            inputs = [values[argument] for argument in node.all_input_nodes]
            if node.op == "placeholder":
                values[node] = image_13SS
            elif node.op == "call_module":
                layer = traced.get_submodule(node.target)
                if type(layer) not in layers:
                    raise EngineUnavailable(
                        f"engine openvino: layer {type(layer).__name__} is not supported; choose "
                        "another engine"
                    )
                values[node] = layers[type(layer)](*inputs, layer)  # type: ignore[operator]
            elif node.target in (operator.add, operator.iadd):
                values[node] = ops.add(*inputs)
            else:
                assert node.op == "output", node.target
                return ov.Model(inputs, [image_13SS], "trunk")
    raise AssertionError("a graph without an output")
