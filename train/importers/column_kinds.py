"""What the columns of a table beyond the fixed ones are: partitions, labels or numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from sonode.console import UserError, counted, say
from train.cohorts.split import partitions
from train.tables.records import Records
from train.tables.texts import AGE, bare_name, spelt_label
from train.tables.values import FormatError, code, number, whole, years

Parser = Callable[[str], object]
NUMBERS: tuple[Parser, ...] = (number, years)
"""Those that make a number: a column of any other holds labels."""


def further_columns(
    records: Records, fixed: Collection[str], given: Mapping[str, str] | None = None
) -> dict[str, Parser]:
    """The columns beyond the fixed ones, each with what makes a value of its text.

    `given`: the kind of some of them, `number` or `label`. A partition is known by its name. Of the
    others those are numbers that hold nothing else, but for whole numbers from 0 to 9: such codes
    (ER, BI-RADS) are labels. An age, known by its name, is in years, and no text makes it a label.

    Raises UserError: a kind is given to a partition, or to no such column.
    """
    further = {name: kind for name, kind in records.kinds.items() if name not in fixed}
    given = given or {}
    parts = partitions(further)
    for name in given:
        if name not in further:
            raise UserError(f"--column {name}: no such further column in SRC")
        if name in parts:
            raise UserError(
                f"--column {name}: holds the parts of a split or folds, by its name; rename the "
                "column if it holds something else"
            )
    parsers: dict[str, Parser] = {}
    for name, kind in further.items():
        values = [row[name] for row in records.rows if row[name]]
        wholes = kind is float and all(_is(whole, value) for value in values)
        as_label = code if wholes else spelt_label
        if name in parts or given.get(name) == "label":
            parsers[name] = as_label
        elif name in given:
            parsers[name] = years if bare_name(name) in AGE else number
        elif wholes and values and all(0 <= float(value) <= 9 for value in values):
            say(
                f"column `{name}`: integers from 0 to 9 are read as labels; "
                f"--column {name}=number reads numbers"
            )
            parsers[name] = code
        elif bare_name(name) in AGE:
            parsers[name] = years
        else:
            parsers[name] = number if kind is float else spelt_label
            if kind is str:
                _report_mixed(records, name)
    return parsers


def _report_mixed(records: Records, name: str) -> None:
    """Say which values make a label of a column that is a number for the most part."""
    others = [
        place
        for place, row in zip(records.places, records.rows, strict=True)
        if row[name] and not _is(number, row[name])
    ]
    if 0 < 2 * len(others) < sum(bool(row[name]) for row in records.rows):
        say(
            f"column `{name}` is read as labels: not a number in {others[0]} "
            f"({counted(len(others), 'such value')}); --column {name}=number reports them as faults"
        )


def _is(parser: Parser, text: str) -> bool:
    try:
        parser(text)
    except FormatError:
        return False
    return True
