import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model_def.preprocessing import RoI
from train.tables.values import FormatError, bbox, identifier, malignancy, number, truth, whole

# Arbitrary text, and text that comes close to what is meant.
TEXT = st.one_of(st.text(), st.text("0123456789.-+eE_,[] naftrue٣"))


@pytest.mark.parametrize(
    ("parser", "text", "value"),
    [
        (truth, " TRUE ", True),
        (truth, "0.0", False),
        (truth, " ", None),
        (number, "-1.5e2", -150.0),
        (number, "7.", 7.0),
        (number, "", None),
        (whole, "3", 3),
        (whole, "3.0", 3),
        (whole, "-2", -2),
        (whole, "", None),
        (malignancy, "Malignant", True),
        (malignancy, "benign", False),
        (malignancy, "", None),
        (bbox, "[91, 24,103,79]", RoI(90, 23, 194, 103)),
        (bbox, "", None),
        (identifier, "7.0", "7"),
        (identifier, "1234567890123.0", "1234567890123"),
        (identifier, "-0.0", "0"),
        (identifier, "", ""),
    ],
)
def test_values_by_hand(parser, text: str, value: object) -> None:
    assert parser(text) == value
    assert type(parser(text)) is type(value)


@pytest.mark.parametrize(
    ("parser", "text"),
    [
        (truth, "yes"),
        (truth, "2"),
        (number, "nan"),
        (number, "1e400"),
        (number, "1_0"),
        (number, "٣"),
        (whole, "1.5"),
        (whole, "2147483648"),
        (whole, "9" * 5000),
        (malignancy, "normal"),
        (bbox, "[1,2,3]"),
        (bbox, "[1,2,3,]"),
        (bbox, "1,2,3,4"),
        (bbox, "[2147483647,0,1,1]"),
    ],
)
def test_what_is_no_value_is_refused(parser, text: str) -> None:
    with pytest.raises(FormatError, match="give "):
        parser(text)


@given(TEXT)
@example("9" * 5000)
def test_any_text_is_a_valid_value_or_the_format_error(text: str) -> None:
    for parser, valid in (
        (truth, lambda value: isinstance(value, bool)),
        (malignancy, lambda value: isinstance(value, bool)),
        (number, lambda value: isinstance(value, float) and math.isfinite(value)),
        (whole, lambda value: isinstance(value, int) and abs(value) < 2**31),
        (bbox, lambda value: isinstance(value, RoI) and max(map(abs, value)) < 2**31),
    ):
        try:
            value = parser(text)
        except FormatError:
            assert text.strip()  # a blank is missing, never a fault
            continue
        assert valid(value) if text.strip() else value is None


@given(st.tuples(*[st.integers(-9999, 9999)] * 4))
def test_a_box_is_read_as_it_is_written(box: tuple[int, int, int, int]) -> None:
    x, y, width, height = box
    assert bbox(str(list(box))) == RoI(x - 1, y - 1, x + width, y + height)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_read_as_it_is_written(value: float) -> None:
    assert number(repr(value)) == value
