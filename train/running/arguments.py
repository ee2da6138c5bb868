"""What jsonargparse would read otherwise: several cohorts, and a key that stands twice."""

from __future__ import annotations

import json
from typing import Any

from jsonargparse import get_loader

from sonode.files.yaml_keys import refuse_duplicate_keys

_yaml_value = get_loader("yaml")


def load_yaml(text: str) -> Any:
    """What jsonargparse reads of a file or a flag; of two equal keys it would take the last."""
    refuse_duplicate_keys(text)
    return _yaml_value(text)


def joined_cohorts(arguments: list[str]) -> list[str]:
    """Arguments in which several `--data.cohort` are one list; jsonargparse would take the last."""
    rest, folders = [], []
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--data.cohort":
            folders.append(value if equals else next(words, ""))
        else:
            rest.append(word)
    if len(folders) < 2:
        return arguments
    return [*rest, f"--data.cohort={json.dumps(folders)}"]
