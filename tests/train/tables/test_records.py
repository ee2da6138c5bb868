import re
from pathlib import Path

import pandas as pd
import pytest

from sonode.console import UserError
from train.tables.records import read_records

NAMES = ("patient_id", "image")


def records(path: Path, data: bytes):
    path.write_bytes(data)
    return read_records(path, NAMES)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators(tmp_path: Path, separator: str) -> None:
    lines = (("patient_id", "age", "image"), ("7", "", "a.png"), ('"8, x; y"', "41", "b.png"))
    text = "\r\n".join(map(separator.join, lines))
    found = records(tmp_path / "t.csv", text.encode("utf-8-sig"))
    assert found.rows == [
        {"patient_id": "7", "age": "", "image": "a.png"},
        {"patient_id": "8, x; y", "age": "41", "image": "b.png"},
    ]
    assert found.places == ["t.csv line 2", "t.csv line 3"]
    # Excel's own word about it.
    said = records(tmp_path / "t.csv", f"sep={separator}\n{text}".encode())
    assert said.rows == found.rows
    assert said.places == ["t.csv line 3", "t.csv line 4"]


def test_columns_of_nothing_behind_the_last_one(tmp_path: Path) -> None:
    found = records(tmp_path / "t.csv", b"patient_id,image,,\n7,a,,\n8,b,,\n")
    assert found.columns == ["patient_id", "image"]
    assert found.rows == [{"patient_id": "7", "image": "a"}, {"patient_id": "8", "image": "b"}]
    with pytest.raises(UserError, match=r"SRC .*column"):
        records(tmp_path / "t.csv", b"patient_id,image,,\n7,a,,x\n")


def test_a_quote_that_never_ends_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a CSV in UTF-8"):
        records(tmp_path / "t.csv", b'patient_id;image;"' + b"x;" * 100_000)


@pytest.mark.parametrize("first", ["# made by R", "PATIENT_ID,IMAGE"])
def test_a_header_that_is_not_there_is_reported_as_that(tmp_path: Path, first: str) -> None:
    with pytest.raises(UserError, match="patient_id, image"):
        records(tmp_path / "t.csv", f"{first}\npatient_id,image\n7,a\n".encode())


def test_a_separator_at_the_end_of_each_line_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 2, 3: "):
        records(tmp_path / "t.csv", b"patient_id,image\n7,a,\n8,b,\n")


def test_parquet_files_one_behind_the_other_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    tables = []
    for patient in ("1 PAR1PAR1", "2000 PAR1PAR1"):
        pd.DataFrame({"patient_id": [patient], "image": ["a"]}).to_parquet(path)
        assert len(read_records(path, NAMES).rows) == 1
        tables.append(path.read_bytes())
    path.write_bytes(b"".join(tables))
    with pytest.raises(UserError, match="several Parquet files one behind the other, of which"):
        read_records(path, NAMES)


def test_a_field_too_many_names_the_separator(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 2: .* semicolon"):
        records(tmp_path / "t.csv", b"patient_id;image\n7;a;b\n")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("patient_id,image\n".encode("utf-16"), "is in UTF-16; save it again as CSV UTF-8"),
        (
            "patient_id,image\nMüller,a.png\n".encode("cp1252"),
            r"not a CSV in UTF-8 \(line 2\), but likely in Windows-1252; save it again as CSV",
        ),
        (b"PK\x03\x04", "an Excel or OpenDocument workbook; save its sheet as CSV UTF-8"),
        (b"patient_id,image\n\0,a\n", r"not a CSV in UTF-8 \(holds a zero byte\)"),
    ],
)
def test_what_is_no_csv_says_what_it_is(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        records(tmp_path / "t.csv", data)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match=r"folder\.csv: is a folder"):
        read_records(tmp_path / "folder.csv", NAMES)


def test_parquet_is_known_by_its_content(tmp_path: Path) -> None:
    pd.DataFrame({"patient_id": [7], "image": ["a"]}).to_parquet(tmp_path / "t.pq")
    assert read_records(tmp_path / "t.pq", NAMES).rows == [{"patient_id": "7", "image": "a"}]


def test_words_for_missing_are_blanks_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = b"patient_id,image,age,er\nNA,a,54,-\n8,b,nan,+\n9,c,NA,\n"
    found = records(tmp_path / "t.csv", text)
    assert [row["age"] for row in found.rows] == ["54", "", ""]
    assert [row["er"] for row in found.rows] == ["-", "+", ""]
    assert found.rows[0]["patient_id"] == ""
    assert found.kinds["age"] is float
    assert capsys.readouterr().out == (
        "read as missing: `NA` in patient_id (1), `nan` in age (1), `NA` in age (1)\n"
    )
    frame = pd.DataFrame({"patient_id": [7, 8], "image": ["a", "b"], "er": ["n/a", "1"]})
    frame.to_parquet(tmp_path / "t.parquet")
    assert read_records(tmp_path / "t.parquet", NAMES).rows[0]["er"] == ""


def test_decimal_commas_are_numbers(tmp_path: Path) -> None:
    found = records(tmp_path / "t.csv", b"patient_id;image;age\n1,5;a;54,5\n2;b;\n")
    assert [row["age"] for row in found.rows] == ["54.5", ""]
    assert found.rows[0]["patient_id"] == "1,5"
    assert found.kinds["age"] is float
    with pytest.raises(UserError, match="column `age`: `1,234`"):
        records(tmp_path / "t.csv", b"patient_id;image;age\n1;a;1,234\n")


def further(tmp_path: Path, values: list[str], **given: str) -> list[object]:
    lines = [f"{place};a;{value}" for place, value in enumerate(values)]
    text = "\n".join(["patient_id;image;x", *lines])
    found = records(tmp_path / "t.csv", text.encode())
    parser = found.further(NAMES, given)["x"]
    return [parser(row["x"]) for row in found.rows]


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
    assert re.search(r"`x` .* 1 values .*\(t\.csv line 4\); --column x=number", line)
    with pytest.raises(UserError, match="--column y: no such further column in SRC"):
        further(tmp_path, ["1"], y="label")
