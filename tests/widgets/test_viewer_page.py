"""The viewer in a real browser, from file://, without a network: numbers, keys, sides, words."""

import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.browser


def pixels(locator):
    return np.asarray(Image.open(io.BytesIO(locator.screenshot())).convert("RGB"), np.int16)


def told(page):
    """Value and lift that the viewer tells of the patch or token last chosen."""
    words = page.locator(".av-value").first.inner_text()
    value, lift = re.search(r": (?:about )?([\d.e+-]+) \(.*\), ([\d.e+-]+) times", words).groups()
    return float(value), float(lift)


def settle(page):
    """Wait until the patch queries of the page are read."""
    page.wait_for_function("() => !document.querySelector('.av-message:not([hidden])')")


@pytest.fixture
def page(scene, open_viewer):
    from attnlib.widgets import viewer

    page = open_viewer(
        viewer(scene["record"], scene["picture"], regions=scene["regions"], small_maps="heads")
    )
    yield page
    assert page.errors == []
    assert page.outside == []


def tick(page):
    return int(page.locator(".attnlib-viewer").get_attribute("data-tick"))


def test_the_first_picture_names_its_layer_head_and_row(page):
    assert page.locator(".av-caption").first.inner_text() == (
        "layer 2, mean over heads, row: class (the head reads it)"
    )
    label = page.locator(".av-canvas").first.get_attribute("aria-label")
    assert "Highest at patch" in label
    assert "the middle" in label
    assert "Outside the patches" in label


def test_hovering_tells_the_true_value_of_the_named_row(page, scene):
    page.get_by_label("head", exact=True).fill("1")
    page.get_by_label("layer", exact=True).fill("0")
    box = page.locator(".av-canvas").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 4.5 / 7, box["y"] + box["height"] * 1.5 / 5)
    row = scene["weights"][0][0, 1, 0, 1:]
    value, lift = told(page)
    assert value == pytest.approx(float(row[1 * 7 + 4]), rel=6e-3)
    assert lift == pytest.approx(float(row[11] / row.sum() * 35), rel=6e-3)


@pytest.mark.parametrize("fold", ["mean", "max", "min"])
def test_merged_heads_and_layers_are_what_torch_says(page, scene, fold):
    page.get_by_label("heads", exact=True).select_option(fold)
    page.get_by_label("layers", exact=True).select_option(fold)
    box = page.locator(".av-canvas").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 2.5 / 7, box["y"] + box["height"] * 3.5 / 5)
    stack = torch.stack([one[0, :, 0, 1:] for one in scene["weights"]])
    how = {"mean": torch.mean, "max": torch.amax, "min": torch.amin}[fold]
    merged = how(how(stack, dim=1), dim=0)
    assert told(page)[0] == pytest.approx(float(merged[3 * 7 + 2]), rel=6e-3)


def test_arrow_keys_choose_the_patch_whose_row_is_shown(page, scene):
    settle(page)
    canvas = page.locator(".av-canvas").first
    canvas.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    assert "where patch (1, 4) looks" in page.locator(".av-caption").first.inner_text()
    token = 1 + 1 * 7 + 4
    row = scene["weights"][2][0].mean(dim=0)[token, 1:]
    assert told(page)[0] == pytest.approx(float(row[1 * 7 + 4]), rel=6e-3)
    page.keyboard.press("Escape")
    assert "row: class" in page.locator(".av-caption").first.inner_text()


def test_a_click_chooses_a_patch_and_the_switch_shows_who_looks_at_it(page, scene):
    settle(page)
    canvas = page.locator(".av-canvas").first
    box = canvas.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 5.5 / 7, box["y"] + box["height"] * 2.5 / 5)
    page.get_by_label("direction").select_option("to")
    assert "who looks at patch (2, 5)" in page.locator(".av-caption").first.inner_text()
    page.mouse.move(box["x"] + box["width"] * 1.5 / 7, box["y"] + box["height"] * 4.5 / 5)
    matrix = scene["weights"][2][0].mean(dim=0)[1:]
    looker, key = 4 * 7 + 1, 2 * 7 + 5
    value, lift = told(page)
    assert value == pytest.approx(float(matrix[looker, 1 + key]), rel=6e-3)
    assert lift == pytest.approx(float(matrix[looker, 1 + key] / matrix[looker, 1:].sum() * 35), rel=2e-2)


def test_two_sides_differ_only_where_their_maps_differ(page):
    page.get_by_label("side by side").check()
    assert page.locator(".av-pane").count() == 3
    page.get_by_label("side", exact=True).select_option("b")
    page.get_by_label("layer", exact=True).fill("0")
    captions = page.locator(".av-caption").all_inner_texts()
    assert captions[0].startswith("A: layer 2")
    assert captions[1].startswith("B: layer 0")
    assert captions[2].startswith("A minus B")
    first, second = (pixels(page.locator(".av-canvas").nth(n))[:250, :350] for n in (0, 1))
    assert np.abs(first - second).mean() > 1


def test_region_shares_in_the_table_are_those_of_python(page, scene):
    from attnlib.record import Relevance

    page.get_by_label("heads", exact=True).select_option("mean")
    scores = scene["weights"][2][:, :, 0].mean(dim=1)
    expected = scene["regions"].shares(Relevance(scores, scene["layout"]))["the middle"]
    cells = page.locator(".av-regions tbody tr").first.inner_text().split("\t")
    assert cells[0] == "the middle"
    assert float(cells[1].split()[0]) / 100 == pytest.approx(float(expected["share"][0]), abs=6e-3)
    assert float(cells[2][:-1]) == pytest.approx(float(expected["lift"][0]), rel=6e-3)


def test_bands_follow_the_cuts_and_the_legend_prints_them(page):
    page.get_by_text("Colours and cuts").click()
    before = pixels(page.locator(".av-canvas").first)
    page.get_by_label("moderate from (x)").fill("2.5")
    page.get_by_label("moderate from (x)").press("Enter")
    assert "2 moderate (green): 2.5-3x" in page.locator(".av-legend").inner_text()
    assert np.abs(pixels(page.locator(".av-canvas").first) - before).max() > 20
    page.get_by_label("low from (x)").fill("9")
    page.get_by_label("low from (x)").press("Enter")
    assert "must increase" in page.locator(".av-status").inner_text()


@pytest.mark.parametrize("palette", ["colour-blind", "viridis", "inferno", "cividis"])
def test_every_palette_draws_another_picture(page, palette):
    page.get_by_text("Colours and cuts").click()
    before = pixels(page.locator(".av-canvas").first)
    page.get_by_label("palette").select_option(palette)
    assert np.abs(pixels(page.locator(".av-canvas").first) - before).mean() > 1
    assert page.get_by_label("patterns").is_checked() == (palette == "colour-blind")


def test_patterns_tell_bands_apart_without_any_colour(page):
    page.get_by_text("Colours and cuts").click()
    page.get_by_label("opacity").fill("0")
    page.get_by_label("region outlines").uncheck()
    plain = pixels(page.locator(".av-canvas").first)
    page.get_by_label("patterns").check()
    assert np.abs(pixels(page.locator(".av-canvas").first) - plain).max() > 60


def test_small_maps_are_buttons_that_go_there(page):
    page.get_by_label("small maps").select_option("all")
    assert page.locator(".av-multiples button").count() == 6
    page.get_by_role("button", name="layer 1, head 0").click()
    assert page.locator(".av-caption").first.inner_text().startswith("layer 1, head 0")
    page.keyboard.press("ArrowRight")
    assert page.locator(".av-caption").first.inner_text().startswith("layer 1, head 1")


def test_play_steps_through_the_layers_until_stopped(page):
    first = page.locator(".av-caption").first.inner_text()
    page.get_by_role("button", name="play through the layers").click()
    page.wait_for_function(
        "(words) => document.querySelector('.av-caption').textContent !== words", arg=first, timeout=5000
    )
    page.get_by_role("button", name="play through the layers").click()
    now = tick(page)
    page.wait_for_timeout(900)
    assert tick(page) == now


def test_zoom_moves_what_is_under_the_pointer(page):
    canvas = page.locator(".av-canvas").first
    page.get_by_role("button", name="zoom in").click()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 3, box["y"] + 3)
    assert page.locator(".av-value").first.inner_text().startswith("patch (0, 1)")
    canvas.focus()
    page.keyboard.press("0")
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    assert page.locator(".av-value").first.inner_text().startswith("patch (0, 0)")


def test_saving_a_png_downloads_the_shown_map(page, tmp_path):
    with page.expect_download() as waiting:
        page.get_by_role("button", name="save the shown maps").click()
    target = tmp_path / "saved.png"
    waiting.value.save_as(target)
    with Image.open(target) as image:
        assert image.format == "PNG"
        assert image.size[0] > 400
        assert np.asarray(image.convert("RGB")).std() > 10


def test_what_a_page_does_not_hold_is_said_and_never_drawn(scene, open_viewer):
    from attnlib.widgets import viewer

    page = open_viewer(viewer(scene["record"], scene["picture"], budget_mb=0))
    page.locator(".av-canvas").first.focus()
    page.keyboard.press("ArrowRight")
    message = page.locator(".av-message").first
    assert message.is_visible()
    assert "no kernel and holds no patch queries" in message.inner_text()
    page.keyboard.press("Escape")
    assert not message.is_visible()
    assert page.errors == []


def test_another_grid_has_no_difference_and_says_so(scene, open_viewer):
    from attnlib.layout import TokenLayout
    from attnlib.record import AttentionRecord
    from attnlib.widgets import viewer

    layout = TokenLayout((3, 2), 13, (), readout="patches")
    other = AttentionRecord.from_weights([torch.full((1, 2, 6, 6), 1 / 6)], layout=layout)
    page = open_viewer(
        viewer({"fine": scene["record"], "coarse": other}, scene["picture"], layer=0, compare={"source": 1})
    )
    assert "no difference: A has 5x7 patches, B 3x2" in page.locator(".av-message").last.inner_text()


def test_a_layer_of_another_grid_is_shown_and_refuses_patch_queries_in_words(open_viewer, scene):
    from dataclasses import replace

    from attnlib.layout import TokenLayout
    from attnlib.record import AttentionRecord
    from attnlib.widgets import viewer

    fine, coarse = TokenLayout((4, 6), readout="patches"), TokenLayout((2, 3), readout="patches")
    first = AttentionRecord.from_weights([torch.softmax(torch.randn(1, 2, 24, 24), -1)], layout=fine)
    last = AttentionRecord.from_weights([torch.softmax(torch.randn(1, 2, 6, 6), -1)], layout=coarse)
    record = replace(last, layers=(first.layers[0], replace(last.layers[0], index=1)))
    page = open_viewer(viewer(record, scene["picture"], layer=0))
    box = page.locator(".av-canvas").first.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.95, box["y"] + box["height"] * 0.9)
    assert "this layer has 4x6 patches" in page.locator(".av-message").first.inner_text()
    page.get_by_label("layer", exact=True).fill("1")
    settle(page)
    assert "where patch (1, 2) looks" in page.locator(".av-caption").first.inner_text()
    assert page.errors == []


def test_every_control_has_a_name_and_can_be_reached_by_tab(page):
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('.attnlib-viewer :is(input, select, button, canvas[tabindex])')]
          .filter((e) => !(e.getAttribute('aria-label') || e.textContent.trim())).map((e) => e.outerHTML)"""
    )
    assert nameless == []
    page.get_by_text("Colours and cuts").click()
    wanted = page.evaluate(
        """() => [...document.querySelectorAll('.attnlib-viewer :is(input, select, button, canvas, summary)')]
          .filter((e) => e.tabIndex >= 0 && e.checkVisibility() && !e.disabled).length"""
    )
    page.evaluate("() => { document.activeElement.blur(); window.__seen = new Set(); }")
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        page.evaluate("() => window.__seen.add(document.activeElement)")
    reached = page.evaluate(
        "() => [...window.__seen].filter((e) => e.closest && e.closest('.attnlib-viewer')).length"
    )
    assert reached >= wanted
    shown = page.evaluate(
        "() => getComputedStyle(document.querySelector(':focus') ?? document.body).outlineStyle"
    )
    assert shown in ("solid", "auto", "none")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground(scene, open_viewer, scheme):
    from attnlib.widgets import viewer

    page = open_viewer(viewer(scene["record"], scene["picture"]), color_scheme=scheme)
    ratios = page.evaluate(
        """() => {
          const light = (rgb) => { const [r, g, b] = rgb.match(/[\\d.]+/g).slice(0, 3).map((v) => {
            const c = v / 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
          const ground = light(getComputedStyle(document.querySelector('.attnlib-viewer')).backgroundColor);
          return [...document.querySelectorAll('.attnlib-viewer :is(span, p, li, summary, option, button, output)')]
            .filter((e) => e.checkVisibility() && e.textContent.trim() && e.getAttribute('aria-pressed') !== 'true')
            .map((e) => { const ink = light(getComputedStyle(e).color);
              return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05); }); }"""
    )
    assert min(ratios) >= 4.5
    assert page.locator(".attnlib-viewer").get_attribute("data-theme") == scheme


def test_a_network_that_drops_packets_does_not_delay_the_first_picture(scene, open_viewer):
    from attnlib.widgets import viewer

    page = open_viewer(viewer(scene["record"], scene["picture"]), offline=False, black_hole=True)
    assert page.outside == []
    assert page.errors == []


def test_paper_gets_patterns_without_being_asked(page):
    page.get_by_label("region outlines").uncheck()
    before = pixels(page.locator(".av-canvas").first)
    ticks = tick(page)
    page.emulate_media(media="print")
    page.wait_for_function(f"() => document.querySelector('.attnlib-viewer').dataset.tick > {ticks}")
    image = page.locator(".av-canvas").first.evaluate("(one) => one.toDataURL()")
    page.emulate_media(media="screen")
    page.wait_for_function(f"() => document.querySelector('.attnlib-viewer').dataset.tick > {ticks + 1}")
    assert image != page.locator(".av-canvas").first.evaluate("(one) => one.toDataURL()")
    assert np.abs(pixels(page.locator(".av-canvas").first) - before).max() == 0


def test_letters_move_layers_heads_patterns_and_never_inside_a_field(page):
    page.locator(".av-canvas").first.focus()
    page.keyboard.press("l")
    assert page.locator(".av-caption").first.inner_text().startswith("layer 0")
    page.keyboard.press("Shift+L")
    page.keyboard.press("h")
    page.keyboard.press("h")
    assert page.locator(".av-caption").first.inner_text().startswith("layer 2, head 1")
    page.keyboard.press("m")
    assert "mean over heads" in page.locator(".av-caption").first.inner_text()
    page.keyboard.press("p")
    page.get_by_text("Colours and cuts").click()
    assert page.get_by_label("patterns").is_checked()
    page.get_by_label("palette").focus()
    page.keyboard.press("p")
    assert page.get_by_label("patterns").is_checked()


def test_a_screen_reader_hears_what_is_shown_when_the_hand_rests(page):
    page.get_by_label("layer", exact=True).fill("0")
    page.wait_for_function(
        "() => document.querySelector('[aria-live]').textContent.startsWith('layer 0, mean over heads')"
    )
    assert "the middle" in page.locator("[aria-live]").text_content()


def test_a_difference_is_told_as_a_difference(page):
    page.get_by_label("side by side").check()
    page.get_by_label("layer", exact=True).fill("0")
    box = page.locator(".av-canvas").nth(2).bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
    assert re.search(r"A (more|less) than B by [\d.]+ times", page.locator(".av-value").nth(2).inner_text())
    tops = [page.locator(".av-canvas").nth(n).bounding_box()["y"] for n in range(3)]
    assert max(tops) - min(tops) < 2


def test_choosing_in_a_pane_makes_it_the_side_that_is_moved(page):
    page.get_by_label("side by side").check()
    page.locator(".av-canvas").nth(1).focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_label("side", exact=True).input_value() == "b"


def test_moving_the_layer_leaves_a_given_map(scene, open_viewer):
    from attnlib import explain
    from attnlib.widgets import viewer

    shown = viewer(scene["record"], scene["picture"], relevances={"rollout": explain(scene["record"])})
    page = open_viewer(shown)
    page.get_by_label("map", exact=True).select_option("1")
    slider = page.get_by_label("layer", exact=True)
    assert slider.get_attribute("aria-valuetext") == "not used: (rollout)"
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert page.get_by_label("map", exact=True).input_value() == "0"
    assert page.locator(".av-caption").first.inner_text().startswith("layer 1")
    assert slider.get_attribute("aria-valuetext") == "1"
    assert ": 0 % of" not in page.locator(".av-status").inner_text()
    assert page.errors == []


def test_a_patch_chosen_in_the_difference_is_chosen_on_both_sides(page):
    page.get_by_label("side by side").check()
    page.get_by_label("side", exact=True).select_option("b")
    page.get_by_label("layer", exact=True).fill("0")
    canvas = page.locator(".av-canvas").nth(2)
    box = canvas.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 5.5 / 7, box["y"] + box["height"] * 2.5 / 5)
    captions = page.locator(".av-caption").all_inner_texts()
    for caption, start in zip(captions, ("A: layer 2", "B: layer 0"), strict=False):
        assert caption.startswith(start)
        assert "where patch (2, 5) looks" in caption
    plain = pixels(canvas)
    page.get_by_text("Colours and cuts").click()
    page.get_by_label("patterns").check()
    assert np.abs(pixels(page.locator(".av-canvas").nth(2)) - plain).max() > 60
    assert "+ is more in A" in page.locator(".av-legend").inner_text()
