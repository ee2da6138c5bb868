import pytest

from sonode.console import UserError
from train.commands.data import kinds_of


def test_the_kinds_of_columns() -> None:
    assert kinds_of(["er=label", "age=number"]) == {"er": "label", "age": "number"}
    for wrong in (["er"], ["er=text"], ["er=label", "er=number"]):
        with pytest.raises(UserError, match="give each NAME=number or NAME=label once"):
            kinds_of(wrong)
