import pytest

from sonode.console import UserError, progress, table


def test_progress_gives_every_item_in_order() -> None:
    assert list(progress(iter("abc"), total=3, what="letters")) == ["a", "b", "c"]


def test_progress_without_a_terminal_is_plain_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 4.0, 11.0, 11.0, 12.0, 22.0, 22.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    assert list(progress("abcd", total=4, what="images")) == list("abcd")
    assert capsys.readouterr().err == "images: 1 of 4\nimages: 3 of 4\n"


def test_a_table_shows_brackets_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    table("T", ("roi",), [("[1, 2]",), ("[red]",)])
    said = capsys.readouterr().out
    assert "[1, 2]" in said
    assert "[red]" in said


def test_an_error_keeps_its_details() -> None:
    assert UserError("two faults", ["a", "b"]).details == ["a", "b"]
