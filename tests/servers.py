"""The servers that tests of a live node run on: one parameter."""

import pytest

from archives.asgi.node import AsgiNode
from archives.torchserve.node import TorchServeNode

SERVERS = [
    pytest.param(TorchServeNode, id="torchserve"),
    pytest.param(AsgiNode, id="asgi"),
]
OPTION = {TorchServeNode: "torchserve", AsgiNode: "asgi"}
"""Of `sonode serve --server`."""
ONE_WORKER = {"default_workers_per_model": "1"}
"""Settings of a node that needs no second one: each takes seconds of CPU time to import torch."""
