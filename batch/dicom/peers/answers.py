"""What names an object in a PACS, and how a PACS refuses one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

TIMEOUT_S = (10.0, 120.0)  # to connect, and for an answer
WAITS_S = (1.0, 5.0, 15.0)
"""Before a question is put again that a PACS did not answer: it may restart."""
T = TypeVar("T")


class NoAnswer(Exception):  # noqa: N818 - reads as what it is
    """The PACS does not answer, or not as it should; the message quotes no UID."""


class Refused(Exception):  # noqa: N818 - reads as what it is
    """The PACS has refused an object; the message is its status."""


class AlreadyThere(Exception):  # noqa: N818 - reads as what it is
    """The PACS says that it has an object of this UID already."""


class Instance(NamedTuple):
    """What names an object in a PACS."""

    study: str
    series: str
    instance: str


def asked(
    question: Callable[[], T],
    waits_s: Sequence[float],
    wait: Callable[[float], object] = time.sleep,
) -> T:
    """Put a question, again after each wait, until one gives true; raise what is NoAnswer then."""
    for wait_s in waits_s:
        try:
            return question()
        except NoAnswer:
            if wait(wait_s):
                raise
    return question()
