"""Settings of the documentation's generator (`make docs`)."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import reference  # noqa: E402

project = "sonode"
copyright = "the sonode authors, Apache-2.0"  # noqa: A001 - Sphinx's name
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
smartquotes = False  # options keep their two dashes
nitpicky = True  # with `-W`, a link to a page or heading that is not there ends the build

myst_enable_extensions = ["alert"]  # as GitHub writes them
myst_heading_anchors = 3  # headings have the anchors that GitHub gives them

html_theme = "furo"  # dark and light, system fonts, nothing from another host
html_title = "sonode"
html_copy_source = False
html_show_sphinx = False

reference.write(HERE / "reference")
