"""HTML pages from the templates here, in the frame that all pages have; all text is escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sonode.console import counted
from sonode.measure_text import number, p_value
from sonode.page import page


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: number(value).replace("-", "\N{MINUS SIGN}")
    environment.filters["signed"] = lambda value: number(value, sign=True).replace(
        "-", "\N{MINUS SIGN}"
    )
    environment.filters["p"] = p_value
    environment.filters["counted"] = counted
    return environment


def render(title: str, template: str, **facts: object) -> str:
    """Give the page of a title, whose body is `template`, filled in.

    Its filters `number` and `signed` write three digits, `p` a p-value, `counted` how many.
    """
    return page(title, [_templates().get_template(template).render(**facts)])


def plots(drawn: Iterable[tuple[str, str, str]]) -> list[dict[str, str]]:
    """Title, alternative text and SVG of each plot, as templates take them."""
    return [{"title": title, "alt": alt, "uri": svg_uri(svg)} for title, alt, svg in drawn]


def svg_uri(svg: str) -> str:
    """A plot as the address of an image."""
    return data_uri("image/svg+xml", svg.encode())


def data_uri(kind: str, content: bytes) -> str:
    """Content of a media type as the address of an image."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
