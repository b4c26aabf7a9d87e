"""The viewer where things are uneven: words in one list only, unequal heads, even weights, two views of one widget."""

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.browser


def text(weights, tokens):
    from attnlib.layout import TokenLayout
    from attnlib.record import AttentionRecord

    return AttentionRecord.from_weights(weights, layout=TokenLayout(None, tokens=tokens, readout=(0,)))


def told(page, label):
    """What the page says about a token under the pointer: (weight, multiples of the even share)."""
    page.locator(".av-tokens:visible").last.locator(".av-token", has_text=label).first.hover()
    words = page.locator(".av-value").first.inner_text()
    return float(words.split(": ")[1].split(" (")[0].removeprefix("about ")), float(
        words.split("), ")[1].split(" times")[0]
    )


def crossing(weights, queries, keys):
    """A record of cross-attention between two lists of tokens."""
    from dataclasses import replace

    from attnlib.layout import TokenLayout
    from attnlib.record import AttentionRecord

    made = AttentionRecord.from_weights([weights]).layers[0]
    layouts = {
        "query_layout": TokenLayout(None, tokens=queries, readout=(0,)),
        "key_layout": TokenLayout(None, tokens=keys, readout=(0,)),
    }
    return AttentionRecord(layers=(replace(made, kind="cross", stream="decoder", **layouts),))


def test_whole_words_join_one_list_where_the_other_marks_none(open_viewer):
    from attnlib.widgets import viewer

    weights = torch.tensor([[[[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]]])
    page = open_viewer(viewer(crossing(weights, ["one", "two"], ["play", "##ing", "now"])))
    page.get_by_label("whole words").check()
    lists = page.locator(".av-tokens:visible")
    assert lists.nth(0).locator(".av-token").all_inner_texts() == ["one", "two"]
    assert lists.nth(1).locator(".av-token").all_inner_texts() == ["playing", "now"]
    lists.nth(0).locator(".av-token").first.click()
    assert told(page, "playing") == pytest.approx((0.8, 1.6), rel=6e-3)
    assert page.errors == []


@pytest.mark.parametrize("causal", [False, True])
def test_the_even_share_of_whole_words_counts_the_words_of_all_pages(open_viewer, causal):
    from attnlib.widgets import viewer

    tokens = [f"w{i // 2}" if i % 2 == 0 else "##x" for i in range(8)]  # four words of two pieces
    scores = torch.zeros(1, 1, 8, 8)
    if causal:
        scores = scores.masked_fill(torch.ones(8, 8).triu(1).bool(), -torch.inf)
    page = open_viewer(viewer(text([torch.softmax(scores, dim=-1)], tokens), page_size=4))
    page.get_by_label("whole words").check()
    page.get_by_label("query page").select_option("1")
    page.locator(".av-tokens:visible").first.locator(".av-token", has_text="w3x").click()
    share = 2 * (1 / 7 + 1 / 8) / 2 if causal else 1 / 4  # two keys, mean of two queries; four words are seen
    assert told(page, "w0x") == pytest.approx((share, share * 4), rel=6e-3)
    assert page.errors == []


def test_even_attention_draws_no_blot_of_lines_and_says_why(open_viewer):
    from attnlib.widgets import viewer

    count = 101
    even = torch.full((1, 1, count, count), 1 / count)
    page = open_viewer(viewer(text([even], [f"t{i}" for i in range(count)]), view="lines"))
    assert (
        "10201 links of 1.0 % each are alike and not drawn" in page.locator(".av-caption").first.inner_text()
    )
    strokes = """() => { let n = 0; const real = CanvasRenderingContext2D.prototype.stroke;
      CanvasRenderingContext2D.prototype.stroke = function () { n++; real.call(this); };
      document.querySelector('[aria-label="direction"]').dispatchEvent(new Event('change'));
      CanvasRenderingContext2D.prototype.stroke = real; return n; }"""
    assert page.evaluate(strokes) == 0
    page.locator(".av-text-canvas").first.focus()
    page.keyboard.press("ArrowDown")
    assert "not drawn" not in page.locator(".av-caption").first.inner_text()
    assert page.evaluate(strokes) == count


def test_the_strongest_lines_are_drawn_and_no_more_than_a_page_bears(open_viewer):
    from attnlib.widgets import viewer

    count = 101
    weights = torch.softmax(
        torch.randn(1, 1, count, count, generator=torch.Generator().manual_seed(2)), dim=-1
    )
    page = open_viewer(viewer(text([weights], [f"t{i}" for i in range(count)]), view="lines"))
    assert "not drawn" not in page.locator(".av-caption").first.inner_text()
    seen = page.evaluate(
        """() => { const seen = []; const real = CanvasRenderingContext2D.prototype.stroke;
          CanvasRenderingContext2D.prototype.stroke = function () { seen.push(this.lineWidth); real.call(this); };
          document.querySelector('[aria-label="direction"]').dispatchEvent(new Event('change'));
          CanvasRenderingContext2D.prototype.stroke = real; return seen; }"""
    )
    strongest = weights.flatten().sort(descending=True).values[:800]
    assert len(seen) == 800
    assert min(seen) == pytest.approx(0.5 + 3.5 * float(strongest[-1] / strongest[0]), rel=1e-2)


def test_a_first_layer_of_one_head_stands_in_a_row_of_its_own(open_viewer):
    from attnlib.layout import TokenLayout
    from attnlib.record import AttentionRecord
    from attnlib.widgets import viewer

    weights = [torch.full((1, heads, 7, 7), 1 / 7) for heads in (1, 3)]
    record = AttentionRecord.from_weights(weights, layout=TokenLayout((2, 3), 13, ("class",), readout=(0,)))
    page = open_viewer(viewer(record, np.zeros((26, 39, 3), dtype=np.uint8), small_maps="all"))
    tops = page.locator(".av-multiples button").evaluate_all("all => all.map(e => e.offsetTop)")
    assert tops[0] < tops[1] == tops[2] == tops[3]


def test_a_narrow_page_cuts_nothing_off(scene, open_viewer):
    from attnlib import Regions
    from attnlib.widgets import viewer

    masks = {f"the surroundings of face {n}": np.eye(65, 91, n) for n in range(3)}
    page = open_viewer(
        viewer(scene["record"], scene["picture"], regions=Regions.from_masks(masks), compare={"layer": 0})
    )
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    heights = page.locator(".av-control > span:visible").evaluate_all("all => all.map(e => e.offsetHeight)")
    assert max(heights) < 26  # every name in one line


def test_a_page_is_silent_until_something_changes_and_then_speaks_once(scene, open_viewer):
    from attnlib.widgets import viewer

    page = open_viewer(viewer(scene["record"], scene["picture"]))
    assert page.locator("[role=status], [role=alert]").count() == 0
    page.wait_for_timeout(1000)
    assert page.locator("[aria-live]").text_content() == ""
    page.get_by_label("layer", exact=True).fill("0")
    page.wait_for_function("() => document.querySelector('[aria-live]').textContent.startsWith('layer 0')")
    assert page.locator("[aria-live]").text_content().count("Outside the patches") == 1
    page.get_by_text("Colours and cuts").click()
    page.get_by_label("red from (x)").fill("0.1")
    page.get_by_label("red from (x)").press("Tab")
    page.wait_for_function(
        "() => document.querySelector('[aria-live]').textContent.includes('must increase')"
    )


def test_the_letter_for_the_direction_waits_for_a_patch(scene, open_viewer):
    from attnlib.widgets import viewer

    page = open_viewer(viewer(scene["record"], scene["picture"]))
    page.locator(".av-canvas").first.focus()
    page.keyboard.press("d")
    page.keyboard.press("ArrowRight")
    assert "where patch" in page.locator(".av-caption").first.inner_text()
    page.keyboard.press("d")
    assert "who looks at patch" in page.locator(".av-caption").first.inner_text()


def test_paper_is_white_and_its_words_dark_also_from_a_dark_screen(scene, open_viewer):
    from attnlib.widgets import viewer

    page = open_viewer(viewer(scene["record"], scene["picture"]), color_scheme="dark")
    colours = """() => [document.body, document.querySelector(".attnlib-viewer")].map((one) =>
      [getComputedStyle(one).color, getComputedStyle(one).backgroundColor])"""
    assert page.evaluate(colours)[1] == ["rgb(230, 237, 243)", "rgb(20, 24, 29)"]
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(colours) == [["rgb(31, 35, 40)", "rgb(255, 255, 255)"]] * 2
