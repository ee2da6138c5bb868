"""torchvision, without torch's compiler.

`torchvision.ops.roi_align` asks `torch._dynamo.utils` one question, whose import takes a second of
a core in each process that starts. No network here has that operator.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from types import ModuleType

ASKED = "torch._dynamo.utils"

if ASKED not in sys.modules:
    stand_in = ModuleType(ASKED)
    vars(stand_in)["is_compile_supported"] = lambda _: False
    sys.modules[ASKED] = stand_in
    try:
        with suppress(ImportError):  # of a version that asks for more: the next import is whole
            import torchvision
    finally:
        del sys.modules[ASKED]

import torchvision  # noqa: E402

models = torchvision.models
