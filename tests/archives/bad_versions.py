"""What can be wrong with a version: code that is appended to its service, goldens that are shifted.

Each takes the folder of an unpacked archive.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

SLOW = """
_handle = ScoringService.handle
def _slow(self, rows, context):
    time.sleep(0.25)
    return _handle(self, rows, context)
ScoringService.handle = _slow
"""
FAILS_NOW_AND_THEN = """
import random
_inference = ScoringService.inference
def _failing(self, prepared):
    golden = not any("whole_frame" in item.warnings for item in prepared)
    if not golden and random.random() < 0.05:
        raise RuntimeError("now and then")
    return _inference(self, prepared)
ScoringService.inference = _failing
"""
FAILS_ONCE_THERE_IS = """
import os, random
_inference = ScoringService.inference
def _failing(self, prepared):
    if os.path.exists({file!r}) and random.random() < 0.1:
        raise RuntimeError("by now")
    return _inference(self, prepared)
ScoringService.inference = _failing
"""
HANGS_ONCE_THERE_IS = """
import os
_inference = ScoringService.inference
def _hanging(self, prepared):
    if os.path.exists({file!r}):
        time.sleep(3600)
    return _inference(self, prepared)
ScoringService.inference = _hanging
"""
DIES_NOW_AND_THEN = """
import os, random
_handle = ScoringService.handle
def _dying(self, rows, context):
    golden = any(name.lower() == "x-roi" for name in context.get_all_request_header(0))
    if not golden and random.random() < 0.05:
        os._exit(1)
    return _handle(self, rows, context)
ScoringService.handle = _dying
"""
WRONG_SCORES = """
from model_def import heads as _heads
_probabilities = _heads.probabilities
def _wrong(*words):
    return 1 - _probabilities(*words)
_heads.probabilities = _wrong
"""
DOES_NOT_LOAD = """
def _refuse(self, context):
    raise RuntimeError("does not load")
ScoringService.initialize = _refuse
"""
DOES_NOT_LOAD_ON_A_NODE = """
_initialize = ScoringService.initialize
def _refuse(self, context):
    if "being_packed" not in context.system_properties:  # which sonode itself always says
        raise RuntimeError("does not load on a node")
    _initialize(self, context)
ScoringService.initialize = _refuse
"""


def append(code: str, folder: Path) -> None:
    service = folder / "service.py"
    service.write_text(service.read_text() + code)


def wrong_scores(folder: Path) -> None:
    """It reproduces its goldens, which are as wrong as all the rest."""
    append(WRONG_SCORES, folder)
    shift_goldens(folder, lambda p: round(1 - p, 5))


def shift_goldens(folder: Path, change: Callable[[float], float]) -> None:
    file = folder / "golden" / "golden.json"
    examples = json.loads(file.read_text())
    for example in examples:
        example["probabilities"] = {head: change(p) for head, p in example["probabilities"].items()}
    file.write_text(json.dumps(examples))


def nothing(_: Path) -> None:
    pass
