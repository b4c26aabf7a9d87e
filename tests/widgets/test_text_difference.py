"""Two selections of text side by side: the third pane is A minus B, and says so where there is none."""

import re

import pytest
import torch

pytestmark = pytest.mark.browser


@pytest.fixture
def page(sentence, open_viewer):
    from attnlib.widgets import viewer

    page = open_viewer(viewer(sentence["record"], layer=2, compare={"layer": 0}))
    yield page
    assert page.errors == []
    assert page.outside == []


def told(page):
    """The signed difference that the third pane tells, in multiples of the even share."""
    words = page.locator(".av-value").nth(2).inner_text()
    found = re.search(r"A (more|less) than B by ([\d.e+-]+) times", words)
    return float(found[2]) * (1 if found[1] == "more" else -1)


def expected(sentence):
    first, second = (sentence["weights"][n][0].mean(dim=0) for n in (2, 0))
    return 7 * (first - second)


def test_the_difference_of_a_token_is_told_and_coloured(page, sentence):
    assert page.locator(".av-pane").count() == 3
    third = page.locator(".av-pane").nth(2)
    third.locator(".av-token", has_text="field").click()
    for side in (0, 1):
        assert page.locator(".av-pane").nth(side).locator("[aria-pressed=true]").inner_text() == "field"
    wanted = expected(sentence)[4]
    for place, token in ((2, "play"), (5, "is"), (1, "the")):
        third.locator(".av-token", has_text=token).hover()
        assert told(page) == pytest.approx(float(wanted[place]), abs=2e-2)
    strongest = sentence["tokens"][int(wanted.argmax())]
    spoken = third.locator(".av-text-canvas").get_attribute("aria-label")
    assert f'More in A: "{strongest}"' in spoken
    colours = third.locator(".av-token").evaluate_all("(all) => all.map((e) => e.style.backgroundColor)")
    assert len(set(colours)) > 3


def test_signs_stand_for_colours(page, sentence):
    page.get_by_text("Colours and cuts").click()
    page.get_by_label("patterns").check()
    third = page.locator(".av-pane").nth(2)
    third.locator(".av-token").nth(4).click()
    marks = third.locator(".av-token").evaluate_all("(all) => all.map((e) => e.dataset.band)")
    wanted = expected(sentence)[4]
    for mark, value in zip(marks, wanted.tolist(), strict=True):
        passed = sum(abs(value) >= cut for cut in (0.5, 1.5, 3))
        assert mark == ("+" if value > 0 else "−") * passed
    assert any(marks)


def test_the_matrix_of_differences_tells_each_cell(page, sentence):
    for side in ("a", "b"):
        page.get_by_label("side", exact=True).select_option(side)
        page.get_by_label("view").select_option("matrix")
    canvas = page.locator(".av-text-canvas").nth(2)
    box = canvas.bounding_box()
    scale = box["width"] / canvas.evaluate("(e) => e.width")
    page.mouse.move(box["x"] + scale * (110 + 26 * 3.5), box["y"] + scale * (110 + 26 * 5.5))
    assert told(page) == pytest.approx(float(expected(sentence)[5, 3]), abs=2e-2)


def test_lines_of_differences_are_broken_where_b_has_more(page):
    for side in ("a", "b"):
        page.get_by_label("side", exact=True).select_option(side)
        page.get_by_label("view").select_option("lines")
    legend = page.locator(".av-legend").inner_text()
    assert "broken ones more in B" in legend
    before = page.locator(".av-text-canvas").nth(2).screenshot()
    page.locator(".av-text-canvas").nth(2).focus()
    page.keyboard.press("ArrowDown")
    assert page.locator(".av-text-canvas").nth(2).screenshot() != before


def test_a_side_compared_with_itself_is_alike(sentence, open_viewer):
    from attnlib.widgets import viewer

    page = open_viewer(viewer(sentence["record"], layer=1, compare={"layer": 1}))
    spoken = page.locator(".av-pane").nth(2).locator(".av-text-canvas").get_attribute("aria-label")
    assert "A and B look alike" in spoken
    assert page.errors == []


def test_texts_of_other_lengths_have_no_difference_and_the_page_says_so(sentence, open_viewer):
    from attnlib.layout import TokenLayout
    from attnlib.record import AttentionRecord
    from attnlib.widgets import viewer

    other = AttentionRecord.from_weights(
        [torch.full((1, 2, 5, 5), 0.2)] * 3, layout=TokenLayout(None, tokens=list("abcde"), readout=(0,))
    )
    page = open_viewer(viewer({"one": sentence["record"], "two": other}, compare={"source": 1}))
    assert "no difference: A has 7 tokens, B 5" in page.locator(".av-pane").nth(2).inner_text()
    page.locator(".av-pane").nth(1).locator(".av-token").nth(3).click()
    assert page.errors == []


def test_other_words_at_the_same_places_are_named_both(sentence, open_viewer):
    from attnlib.layout import TokenLayout
    from attnlib.record import AttentionRecord
    from attnlib.widgets import viewer

    words = ["[CLS]", "the", "cat", "##ty", "field", "is", "[SEP]"]
    other = AttentionRecord.from_weights(
        sentence["weights"], layout=TokenLayout(None, tokens=words, readout=(0,))
    )
    page = open_viewer(viewer({"one": sentence["record"], "two": other}, compare={"source": 1}))
    third = page.locator(".av-pane").nth(2).locator(".av-token").all_inner_texts()
    assert third == ["[CLS]", "the", "play/cat", "##ing/##ty", "field", "is", "[SEP]"]
    assert "place by place" in page.locator(".av-notes").inner_text()


HARD = {
    "": "(empty)",
    " ": "␣",
    "\n": "↵",
    "\u200b": "U+200B",
    "\u200d": "U+200D",
    "a\u202eb": "aU+202Eb",
    "\U0001f469\u200d\U0001f680": "\U0001f469\u200d\U0001f680",
    "می\u200cخواهم": "می\u200cخواهم",
    "שלום": "שלום",
    "x" * 3000: "x" * 3000,
}


def test_tokens_that_cannot_be_seen_get_a_sign_and_long_ones_do_not_break_the_page(open_viewer):
    from attnlib.layout import TokenLayout
    from attnlib.record import AttentionRecord
    from attnlib.widgets import viewer

    count = len(HARD)
    weights = torch.softmax(torch.randn(1, 1, count, count, generator=torch.Generator().manual_seed(0)), -1)
    layout = TokenLayout(None, tokens=list(HARD), readout=(0,))
    page = open_viewer(viewer(AttentionRecord.from_weights([weights], layout=layout)))
    shown = page.locator(".av-token").evaluate_all("(all) => all.map((e) => e.textContent)")
    assert shown == list(HARD.values())
    widths = page.locator(".av-token").evaluate_all(
        "(all) => all.map((e) => e.getBoundingClientRect().width)"
    )
    assert min(widths) > 8
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    for view in ("lines", "matrix"):
        page.get_by_label("view").select_option(view)
        page.locator(".av-text-canvas").focus()
        page.keyboard.press("ArrowDown")
    assert page.errors == []
