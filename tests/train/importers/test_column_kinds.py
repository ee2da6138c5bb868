import re
from pathlib import Path

import pytest

from sonode.console import UserError
from train.importers.column_kinds import further_columns
from train.tables.records import read_records
from train.tables.values import FormatError

NAMES = ("patient_id", "image")


def further(tmp_path: Path, values: list[str], name: str = "x", **given: str) -> list[object]:
    lines = [f"{place};a;{value}" for place, value in enumerate(values)]
    text = "\n".join([f"patient_id;image;{name}", *lines])
    (tmp_path / "t.csv").write_text(text)
    found = read_records(tmp_path / "t.csv", NAMES)
    parser = further_columns(found, NAMES, given)[name]
    return [parser(row[name]) for row in found.rows]


def test_codes_are_labels_unless_column_decides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert further(tmp_path, ["0", "1.0", "", "01"]) == ["0", "1", None, "1"]
    assert "--column x=number" in capsys.readouterr().out
    assert further(tmp_path, ["0", "1", ""], x="number") == [0.0, 1.0, None]
    assert capsys.readouterr().out == ""
    for values in (["9", "10"], ["-1", "3"], ["0.5", "1"]):
        assert further(tmp_path, values) == [float(value) for value in values]
    assert further(tmp_path, ["10", "20.0"], x="label") == ["10", "20"]
    assert further(tmp_path, ["4a", "4b"]) == ["4a", "4b"]


def test_a_number_column_with_a_word_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert further(tmp_path, ["54", "61", "ca. 60"]) == ["54", "61", "ca. 60"]
    (line,) = capsys.readouterr().out.splitlines()
    assert re.search(r"`x` .* t\.csv line 4 \(1 such value\); --column x=number", line)
    with pytest.raises(UserError, match="--column y: no such further column in SRC"):
        further(tmp_path, ["1"], y="label")


@pytest.mark.parametrize("name", ["age", "Patient Age", "age_years"])
def test_an_age_is_in_years(tmp_path: Path, name: str) -> None:
    assert further(tmp_path, ["063Y", "018M", "63", "", "61.5"], name) == [63, 1.5, 63, None, 61.5]
    assert further(tmp_path, ["63,5", "61"], name) == [63.5, 61]
    for text in ("5 years", "12M", "63Y", "40-49", "ca. 60"):
        with pytest.raises(FormatError, match=r"give years as 63 or 063Y, or blank; --column"):
            further(tmp_path, ["63", text], name)
        with pytest.raises(FormatError):
            further(tmp_path, [text], name, **{name: "number"})
        assert further(tmp_path, ["63", text], name, **{name: "label"}) == ["63", text]
    assert further(tmp_path, ["063Y", "061Y"], "stage") == ["063Y", "061Y"]


def test_a_partition_is_no_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("split", "fold", "fold_10"):
        assert further(tmp_path, ["1", "10", "2.0"], name) == ["1", "10", "2"]
        assert further(tmp_path, ["a", "b", "10"], name) == ["a", "b", "10"]
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="--column fold: holds the parts of a split or folds"):
        further(tmp_path, ["1", "2"], "fold", fold="number")
    assert further(tmp_path, ["1.5", "2"], "fold_change") == [1.5, 2.0]
