"""The frame of every HTML page: one style for light and dark, a table of contents, no script.

A page is one file and fetches nothing: pictures are data URIs.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

_STYLE = Path(__file__).with_suffix(".css")
_HEADING = re.compile(r"<h2>(.*?)</h2>", re.DOTALL)


def page(title: str, body: Sequence[str]) -> str:
    """Give the page of a title, as text, and a body, as HTML; its h2 headings are the contents."""
    headings: list[str] = []

    def number(found: re.Match[str]) -> str:
        headings.append(re.sub(r"<.*?>", "", found[1]))
        return f'<h2 id="part-{len(headings)}">{found[1]}</h2>'

    text = _HEADING.sub(number, "\n".join(body))
    links = (f'<li><a href="#part-{n}">{name}</a></li>' for n, name in enumerate(headings, 1))
    contents = f'<nav aria-label="Contents"><ul>{"".join(links)}</ul></nav>' if headings else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>sonode: {html.escape(title)}</title>
<style>
{_STYLE.read_text()}</style>
</head>
<body{' class="wide"' if headings else ""}>
<h1>{html.escape(title)}</h1>
{contents}
{text}
<footer>A research tool: not a medical device.</footer>
</body>
</html>
"""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, text: bool = False) -> str:
    """Give the HTML of a table of texts: its first column stands left, the others, numbers, right.

    A head of empty texts is left out. With `text` all columns stand left.
    """

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = ["", *["" if text else ' class="n"'] * len(cells)]
        found = zip(cells, kinds, strict=False)
        return "<tr>" + "".join(f"<{tag}{k}>{html.escape(c)}</{tag}>" for c, k in found) + "</tr>"

    top = f"<thead>{line(head, 'th')}</thead>" if any(head) else ""
    lines = "".join(line(row, "td") for row in rows)
    return f'<div class="scroll"><table>{top}<tbody>{lines}</tbody></table></div>'
