"""A report as one HTML page: everything in it, no script, nothing fetched."""

from __future__ import annotations

import html
from collections.abc import Sequence

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
 body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto }}
 table {{ border-collapse: collapse; margin: .5rem 0 1.5rem }}
 td, th {{ padding: .2rem .9rem .2rem 0; text-align: right; font-weight: normal }}
 td {{ font-variant-numeric: tabular-nums }}
 td:first-child, th:first-child, .text td, .text th {{ text-align: left }}
 th {{ border-bottom: 1px solid #888; color: #555; vertical-align: bottom }}
 .warn {{ color: #a40000; font-weight: bold }}
 figure {{ display: inline-block; margin: 0 1rem 1rem 0 }}
 figcaption, p.note {{ color: #555 }}
</style>
<h1>{title}</h1>
{body}
<p class="note">A research tool: not a medical device.</p>
</html>
"""


def page(title: str, body: Sequence[str]) -> str:
    """Give the page of a title, as text, and a body, as HTML."""
    return _PAGE.format(title=html.escape(title), body="\n".join(body))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Give the HTML of a table of texts; numbers stand right, its first column left.

    A head of empty texts is left out. Within an element of class `text` all columns stand left.
    """

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    top = line(head, "th") if any(head) else ""
    return f"<table>{top}" + "".join(line(row, "td") for row in rows) + "</table>"
