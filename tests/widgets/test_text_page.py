"""The text view in a real browser: the numbers of text, lines and matrix, words, pages, cross-attention."""

import re

import pytest
import torch

pytestmark = pytest.mark.browser


@pytest.fixture
def page(sentence, open_viewer):
    from attnlib.widgets import viewer

    page = open_viewer(viewer(sentence["record"], layer=1))
    yield page
    assert page.errors == []
    assert page.outside == []


def value(page):
    return float(re.search(r": (?:about )?([\d.e+-]+) \(", page.locator(".av-value").first.inner_text())[1])


def test_choosing_a_token_colours_what_it_looks_at(page, sentence):
    page.locator(".av-token", has_text="field").click()
    page.locator(".av-token", has_text="play").hover()
    expected = sentence["weights"][1][0].mean(dim=0)[4, 2]
    assert value(page) == pytest.approx(float(expected), rel=6e-3)
    assert page.locator(".av-status").inner_text().startswith('"field" looks most at')


def test_the_switch_shows_who_looks_at_a_token(page, sentence):
    page.get_by_label("direction").select_option("to")
    page.locator(".av-token", has_text="field").click()
    page.locator(".av-token", has_text="the").first.hover()
    expected = sentence["weights"][1][0].mean(dim=0)[1, 4]
    assert value(page) == pytest.approx(float(expected), rel=6e-3)


def test_pieces_of_a_word_are_added_as_keys_and_averaged_as_queries(page, sentence):
    page.get_by_label("whole words").check()
    assert page.locator(".av-token").all_inner_texts() == ["[CLS]", "the", "playing", "field", "is", "[SEP]"]
    page.locator(".av-token", has_text="playing").click()
    page.locator(".av-token", has_text="playing").hover()
    matrix = sentence["weights"][1][0].mean(dim=0)
    assert value(page) == pytest.approx(float(matrix[2:4, 2:4].sum() / 2), rel=6e-3)


def test_arrow_keys_walk_through_the_tokens(page):
    page.locator(".av-token").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator(".av-token[aria-pressed=true]").inner_text() == "the"
    page.keyboard.press("Escape")
    assert page.locator(".av-token[aria-pressed=true]").count() == 0


@pytest.mark.parametrize("view", ["lines", "matrix"])
def test_lines_and_matrix_draw_and_follow_the_keys(page, view):
    page.get_by_label("view").select_option(view)
    canvas = page.locator(".av-text-canvas")
    before = canvas.screenshot()
    canvas.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert canvas.screenshot() != before
    assert '"the" looks most at' in canvas.get_attribute("aria-label")


def test_the_matrix_tells_the_value_of_each_cell(page, sentence):
    page.get_by_label("view").select_option("matrix")
    page.get_by_label("head", exact=True).fill("1")
    box = page.locator(".av-text-canvas").bounding_box()
    page.mouse.move(box["x"] + 110 + 26 * 3.5, box["y"] + 110 + 26 * 5.5)
    assert value(page) == pytest.approx(float(sentence["weights"][1][0, 1, 5, 3]), rel=6e-3)
    assert '"is" looks at "##ing"' in page.locator(".av-value").first.inner_text()


def test_cross_attention_shows_two_lists(open_viewer):
    from attnlib.layout import TokenLayout
    from attnlib.record import AttentionRecord
    from attnlib.widgets import viewer

    weights = torch.softmax(torch.randn(1, 2, 3, 5, generator=torch.Generator().manual_seed(2)), dim=-1)
    keys = TokenLayout(None, tokens=["ein", "Haus", "am", "See", "."], readout=(0,))
    record = AttentionRecord.from_weights([weights], layout=keys)
    page = open_viewer(viewer(record))
    assert page.locator(".av-tokens").nth(0).locator(".av-token").count() == 3
    assert page.locator(".av-tokens").nth(1).locator(".av-token").all_inner_texts() == list(keys.tokens)
    page.locator(".av-tokens").nth(0).locator(".av-token").nth(2).click()
    page.locator(".av-token", has_text="See").hover()
    assert value(page) == pytest.approx(float(weights[0].mean(dim=0)[2, 3]), rel=6e-3)
    assert page.errors == []


def test_a_causal_row_is_compared_with_the_keys_it_may_see(open_viewer, sentence):
    from attnlib.record import AttentionRecord
    from attnlib.widgets import viewer

    lower = [torch.tril(torch.ones(7, 7)) / torch.arange(1, 8)[:, None] for _ in range(2)]
    record = AttentionRecord.from_weights(
        [one.expand(1, 2, 7, 7) for one in lower], layout=sentence["record"].layout
    )
    page = open_viewer(viewer(record))
    page.locator(".av-token").nth(3).click()
    page.locator(".av-token").nth(1).hover()
    assert "0.25" in page.locator(".av-value").first.inner_text()
    assert "1 times the even share" in page.locator(".av-value").first.inner_text()


def test_long_text_is_shown_by_page_and_absent_pages_say_so(open_viewer):
    from attnlib.layout import TokenLayout
    from attnlib.record import AttentionRecord
    from attnlib.widgets import viewer

    generator = torch.Generator().manual_seed(3)
    weights = [torch.softmax(torch.randn(1, 2, 60, 60, generator=generator), dim=-1) for _ in range(2)]
    layout = TokenLayout(None, tokens=[f"t{i}" for i in range(60)], readout=(0,))
    record = AttentionRecord.from_weights(weights, layout=layout)
    page = open_viewer(viewer(record, page_size=20, budget_mb=0.0072))
    assert page.locator(".av-token").count() == 20
    page.get_by_label("query page").select_option("2")
    page.get_by_label("key page").select_option("2")
    page.wait_for_selector(".av-token:has-text('t59')")
    page.get_by_label("key page").select_option("0")
    assert "a kernel has the rest" in page.locator(".av-message").first.inner_text()
    assert page.errors == []


def test_every_coloured_token_can_be_read(page):
    page.locator(".av-token").nth(2).click()
    ratios = page.evaluate(
        """() => [...document.querySelectorAll('.av-token')].map((e) => {
          const light = (rgb) => { const [r, g, b] = rgb.match(/[\\d.]+/g).slice(0, 3).map((v) => {
            const c = v / 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
          const [a, b] = [light(getComputedStyle(e).color), light(getComputedStyle(e).backgroundColor)];
          return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); })"""
    )
    assert min(ratios) >= 4.5
