from pathlib import Path

import pytest

from train.paper.sections import Section, Table, write_page


@pytest.mark.parametrize(
    ("p", "told"),
    [(0.0496, "p &lt;0.050"), (0.0002, "p &lt;0.001"), (0.05, "p = 0.050"), (0.0494, "p = 0.049")],
)
def test_a_p_value_has_one_sign(p: float, told: str, tmp_path: Path) -> None:
    difference = {"value": -0.0002, "low": -0.1, "high": 0.1, "p_value": p}
    table = Table(caption="", columns=["", "AUC"], rows=[["chain", difference]], file="a.csv")
    page = write_page(tmp_path, "Paper", [], [Section(title="AUC", tables=[table])]).read_text()
    assert f">{told}</span>" in page
    assert "+0.000" in page
