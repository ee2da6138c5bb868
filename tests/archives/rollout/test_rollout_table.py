"""The table of `make rollouts` names tests that are there, and calls no row right without them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.archives.figures import Figures
from tests.archives.rollout_matrix import KILLS, SCENARIOS
from tests.archives.rollout_table import LINES, LIVE, Line, Table, wanted

TESTS = Path(__file__).parents[1]


def test_each_line_names_tests_that_are_there():
    texts = [path.read_text() for path in TESTS.rglob("test_*.py")]
    there = {name for text in texts for name in re.findall(r"^def (test_\w+)\(", text, re.M)}
    scenarios = {f"{LIVE}[{it.name}]" for it in (*SCENARIOS, *KILLS)}
    there |= scenarios
    assert set(wanted()) - there == set()
    assert [line.name for line in LINES] == [
        *(f"A{number}" for number in range(1, 10)),
        *(f"B{number}" for number in range(1, 11)),
        "C",
    ]
    # Each scenario is in a row.
    assert scenarios <= set(wanted())


def test_a_row_by_hand():
    table, line = Table(), Line("A1", "it hangs", ("test_a", "test_b[x]"))
    table.took["test_a[1]"] = 4.4
    table.outcomes["test_a[1]"] = [("f.py::test_a[1]", "passed", Figures(10, 1, 2.0, ["p95 3 ms"]))]
    assert table.row(line) == (
        "| A1 | it hangs | 1 | NO: test_b[x] was not found | 10 | 1 | 2.0 | 4 | p95 3 ms |",
        False,
    )
    table.outcomes["test_b[x]"] = [("f.py::test_b[x]", "skipped", Figures(5, 5))]
    found = "| A1 | it hangs | 1 | yes | 10 | 1 | 2.0 | 4 | p95 3 ms; not run here: test_b[x] |"
    assert table.row(line) == (found, True)
    table.outcomes["test_b[x]"] = [("f.py::test_b[x]", "failed", Figures(5, 1, 1.0))]
    found = "| A1 | it hangs | 2 | NO: test_b[x] failed | 15 | 2 | 2.0 | 4 | p95 3 ms |"
    assert table.row(line) == (found, False)
    table.outcomes.clear()
    table.outcomes["test_a"] = [("f.py::test_a", "skipped", Figures())]
    assert table.row(Line("A1", "it hangs", ("test_a",)))[0].count("not run here") == 2
