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
