"""YAML that people write: a key that stands twice is refused, where PyYAML takes the last one."""

from __future__ import annotations

from typing import Any

import yaml


class DuplicateKeyError(yaml.MarkedYAMLError):
    """A mapping has a key twice; `line` counts from 1."""

    def __init__(self, key: str, line: int, first: int) -> None:
        super().__init__(problem=f"line {line}: key `{key}` is already in line {first}")


def refuse_duplicate_keys(text: str) -> None:
    """Raise DuplicateKeyError where any mapping of `text` has a key twice.

    YAML 1.2.2, section 3.2.1.3: keys of a mapping are unique.

    Raises yaml.YAMLError: also where the text is no YAML.
    """
    for document in yaml.compose_all(text, Loader=yaml.SafeLoader):
        _check(document)


def _check(node: Any) -> None:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check(item)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                line, name = key.start_mark.line + 1, (key.tag, key.value)
                if name in lines:
                    raise DuplicateKeyError(key.value, line, lines[name])
                lines[name] = line
            _check(value)
