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


def test_an_index_of_pandas_is_no_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pd.DataFrame({"patient_id": ["7", "9"], "image": ["a", "c"]}, index=[3, 1])
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "t.csv")
    pd.read_csv(tmp_path / "t.csv").to_csv(tmp_path / "twice.csv")
    expected = [{"patient_id": "7", "image": "a"}, {"patient_id": "9", "image": "c"}]
    for name in ("t.parquet", "t.csv", "twice.csv"):
        found = read_records(tmp_path / name, NAMES)
        assert (found.columns, found.rows, set(found.kinds)) == ([*NAMES], expected, set(NAMES))
    assert capsys.readouterr().out.splitlines() == [
        f"column `{it}` is the index that pandas wrote and is not read"
        for it in ("__index_level_0__", "", "", "Unnamed: 0")
    ]
    # An index with a name is a column, and one whose name was forgotten is not taken for an index.
    frame.set_index("patient_id").to_parquet(tmp_path / "named.parquet")
    assert read_records(tmp_path / "named.parquet", NAMES).rows == [
        {"image": "a", "patient_id": "7"},
        {"image": "c", "patient_id": "9"},
    ]
    forgotten = records(tmp_path / "f.csv", b",patient_id,image\n54,7,a\n54,8,b\n")
    assert forgotten.columns == ["", *NAMES]
    for name in ("", "Unnamed: 2"):  # pandas' own is the first one
        nameless = records(
            tmp_path / "n.csv", f"patient_id,image,{name}\n7,a,54\n8,b,61\n".encode()
        )
        assert nameless.columns == [*NAMES, name]
    with pytest.raises(UserError, match="column `` is duplicated; keep one"):
        records(tmp_path / "two.csv", b",patient_id,image,\n0,7,a,54\n1,8,b,61\n")


def test_types_of_pandas(tmp_path: Path) -> None:
    values = {
        "patient_id": pd.Series(["7", "8"], dtype="string[pyarrow]"),
        "image": pd.Categorical(["a", "b"]),
        "malignant": pd.Series([True, None], dtype="object"),
        "palpable": [True, False],
        "n_nodes": pd.Series([2, None], dtype="Int64"),
        "grade": pd.Categorical([1, 3]),
    }
    pd.DataFrame(values).to_parquet(tmp_path / "t.parquet")
    found = read_records(tmp_path / "t.parquet", NAMES)
    assert [list(row.values()) for row in found.rows] == [
        ["7", "a", "True", "True", "2", "1"],
        ["8", "b", "", "False", "", "3"],
    ]
    assert [name for name, kind in found.kinds.items() if kind is float] == ["n_nodes", "grade"]
    dates = pd.DataFrame(values | {"seen": pd.to_datetime(["2020-01-01", "2021-01-01"])})
    dates.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"column `seen` holds timestamp\[..\]; write it as string"):
        read_records(tmp_path / "t.parquet", NAMES)
