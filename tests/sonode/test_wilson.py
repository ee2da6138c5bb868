"""Wilson's interval against published figures."""

import pytest

from sonode.wilson import wilson


def test_intervals_of_a_published_example() -> None:
    # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(0, 0) is None
    ends = [it for n in range(1, 50) for it in (wilson(0, n), wilson(n, n)) if it]
    assert {low for low, _ in ends[::2]} == {0} and {high for _, high in ends[1::2]} == {1}
