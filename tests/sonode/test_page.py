"""Every page has one frame: its contents are its headings, and its texts are escaped."""

from sonode.page import page, table


def test_the_contents_are_the_headings_in_their_order() -> None:
    text = page("A < B", ["<h2>Scores</h2>", "<h2>What <em>failed</em></h2>"])
    assert "<h1>A &lt; B</h1>" in text
    assert '<li><a href="#part-1">Scores</a></li><li><a href="#part-2">What failed</a></li>' in text
    assert '<h2 id="part-2">What <em>failed</em></h2>' in text


def test_a_page_without_headings_has_no_contents() -> None:
    assert "<nav" not in page("A", ["<p>Nothing.</p>"])


def test_numbers_stand_right_and_texts_left() -> None:
    assert table(("a", "b"), [("<x>", "1")]) == (
        '<div class="scroll"><table><thead><tr><th>a</th><th class="n">b</th></tr></thead>'
        '<tbody><tr><td>&lt;x&gt;</td><td class="n">1</td></tr></tbody></table></div>'
    )
    assert "class" not in table(("", ""), [("a", "b")], text=True).removeprefix("<div class=")
