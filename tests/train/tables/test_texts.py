import pytest

from train.tables.texts import (
    alike,
    missing_words,
    rounded_by_excel,
    spelt_id,
    spelt_label,
    without_decimal_commas,
)
from train.tables.values import FormatError


def test_words_for_missing_by_hand() -> None:
    words = ["NA", "n/a", "nan", "-", "None", "NULL", "#N/A", "not available"]
    assert missing_words([*words, "none", "no", "", "0", "Nancy", "NAD"]) == set(words)
    # Of a receptor a dash is the negative.
    assert missing_words(["-", "+", "NA"]) == {"NA"}
    assert missing_words(["-", "2+"]) == set()


def test_decimal_commas_by_hand() -> None:
    assert without_decimal_commas(["54,5", "", "60", "-,5"]) == ["54.5", "", "60", "-.5"]
    assert without_decimal_commas(["0,123", "1,234"]) == ["0.123", "1.234"]
    for others in (["54.5", "60"], ["1,5", "2.5"], ["1,5", "x"], ["1,2,3"], [""], []):
        assert without_decimal_commas(others) is None
    for thousands in (["1,234"], ["12,345", "7"], ["-1,234"]):
        with pytest.raises(FormatError, match="decimals or thousands"):
            without_decimal_commas(thousands)


def test_spelling_by_hand() -> None:
    assert spelt_id("Mu\u0308ller 7") == spelt_id("M\u00fcller 7") == "M\u00fcller 7"
    for hidden, name in (("\u200b", "U+200B"), ("\u00a0", "U+00A0"), ("\ufeff", "U+FEFF")):
        with pytest.raises(FormatError, match=rf"invisible character {name.replace('+', '.')};"):
            spelt_id(f"MRN{hidden}12")
    for damaged in ("1.23457E+12", "1,23457e+12", "1E+05"):
        with pytest.raises(FormatError, match="a number that Excel has shortened"):
            spelt_id(damaged)
    assert spelt_id("12E5") == "12E5"
    for error in ("#REF!", "#NAME?", "#DIV/0!"):
        with pytest.raises(FormatError, match="Excel's error"):
            spelt_label(error)
    assert spelt_label("GE\u00a0 Logiq\n7") == "GE Logiq 7"
    assert spelt_label("1.23457E+12") == "1.23457E+12"
    assert spelt_label("") is None


def test_long_ids_that_excel_rounded() -> None:
    assert rounded_by_excel(["1234567890123450000", "1234567890123460000", "7", "MRN"])
    assert not rounded_by_excel(["1234567890123450000", "1234567890123456789"])
    assert not rounded_by_excel(["123456789012340", "0", ""])


def test_alike_by_hand() -> None:
    assert alike(["MRN12", "7", None, "mrn 12", "007", "MRN12", "70", "MRN012", "8"]) == [
        [0, 3, 7],
        [1, 4],
    ]
    assert alike(["0", "00", "10", "1", "3.05", "3.5"]) == [[0, 1]]
    assert alike(["7", "7.0", "007.00", "70", "1.7", "1.70", "v7.0"]) == [[0, 1, 2]]
