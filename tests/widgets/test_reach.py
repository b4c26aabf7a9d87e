"""For every hand and eye: forced colours, fingers, one stop of the Tab key, differences that are honest."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("wish", [{"forced_colors": "active"}, {"contrast": "more"}])
def test_who_asks_for_few_colours_or_contrast_starts_with_patterns(scene, open_viewer, wish):
    from attnlib.widgets import viewer

    page = open_viewer(viewer(scene["record"], scene["picture"], small_maps="heads"), **wish)
    page.get_by_text("Colours and cuts").click()
    assert page.get_by_label("patterns").is_checked()
    page.get_by_label("patterns").uncheck()
    assert not page.get_by_label("patterns").is_checked()


def test_a_chosen_token_and_the_colours_of_tokens_stay_in_forced_colours(sentence, open_viewer):
    from attnlib.widgets import viewer

    page = open_viewer(viewer(sentence["record"]), forced_colors="active")
    page.locator(".av-token").nth(3).click()
    seen = page.evaluate(
        "() => [...document.querySelectorAll('.av-token')].map(e => getComputedStyle(e).backgroundColor)"
    )
    assert len(set(seen)) > 1
    assert page.locator(".av-token[data-band]:not([data-band=''])").count() > 0


def test_the_tokens_that_are_looked_at_are_one_stop_and_tell_their_values(open_viewer):
    from attnlib.layout import TokenLayout
    from attnlib.record import AttentionRecord
    from attnlib.widgets import viewer

    weights = torch.softmax(torch.randn(1, 2, 3, 5, generator=torch.Generator().manual_seed(2)), dim=-1)
    keys = TokenLayout(None, tokens=["ein", "Haus", "am", "See", "."], readout=(0,))
    page = open_viewer(viewer(AttentionRecord.from_weights([weights], layout=keys)))
    looked_at = page.locator(".av-tokens").nth(1)
    assert looked_at.locator("[tabindex='0']").count() == 1
    looked_at.locator("[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    mean = weights[0].mean(dim=(0, 1))
    assert page.evaluate("() => document.activeElement.textContent") == "am"
    assert page.locator(".av-value").first.inner_text().startswith('"am" (2): ')
    assert page.evaluate("() => document.activeElement.ariaLabel") == f"am, {100 * float(mean[2]):.1f} %"
    assert looked_at.locator("[tabindex='0']").count() == 1
    assert page.locator(".av-token[aria-pressed=true]").count() == 0
    assert page.errors == []


def test_a_finger_moves_a_magnified_picture_and_else_the_page(scene, open_viewer):
    from attnlib.widgets import viewer

    page = open_viewer(viewer(scene["record"], scene["picture"]))
    canvas = page.locator(".av-canvas").first
    assert canvas.evaluate("e => getComputedStyle(e).touchAction") == "manipulation"
    page.get_by_role("button", name="zoom in").click()
    assert canvas.evaluate("e => getComputedStyle(e).touchAction") == "none"
    page.get_by_role("button", name="zoom out").click()
    assert canvas.evaluate("e => getComputedStyle(e).touchAction") == "manipulation"


def test_a_difference_is_as_blocky_as_the_bands_it_compares(scene, open_viewer):
    from attnlib.widgets import viewer

    page = open_viewer(viewer(scene["record"], scene["picture"], compare={"layer": 0}))
    page.get_by_text("Colours and cuts").click()
    page.get_by_label("opacity").fill("100")
    shot = page.locator(".av-canvas").nth(2).screenshot()
    pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"), int)
    height, width = pixels.shape[0] / 5, pixels.shape[1] / 7
    patch = pixels[int(1.2 * height) : int(1.8 * height), int(2.2 * width) : int(2.8 * width)]
    assert np.ptp(patch, axis=(0, 1)).max() <= 2


def test_maps_of_different_parts_of_the_picture_have_no_difference(scene, open_viewer):
    from attnlib.picture import View
    from attnlib.widgets import viewer

    whole = dataclasses.replace(scene["record"], views=(View((65, 91), (65, 91), (0.0, 0.0, 91.0, 65.0)),))
    left = dataclasses.replace(scene["record"], views=(View((65, 91), (65, 91), (0.0, 0.0, 45.0, 65.0)),))
    page = open_viewer(viewer({"whole": whole, "left": left}, scene["picture"], compare={"source": 1}))
    message = page.locator(".av-message").nth(2)
    assert message.inner_text() == "no difference: A and B see different parts of the picture"
    assert page.errors == []


def test_a_list_that_is_no_longer_coloured_keeps_nothing_of_its_colours(open_viewer):
    from attnlib.layout import TokenLayout
    from attnlib.record import AttentionRecord
    from attnlib.widgets import viewer

    weights = torch.softmax(3 * torch.randn(1, 2, 11, 11, generator=torch.Generator().manual_seed(2)), dim=-1)
    layout = TokenLayout(None, tokens=[f"w{i}" for i in range(11)], readout=(0,))
    page = open_viewer(viewer(AttentionRecord.from_weights([weights], layout=layout), page_size=6))
    page.get_by_text("Colours and cuts").click()
    page.get_by_label("patterns").check()
    page.get_by_label("key page", exact=True).select_option("1")
    queries = page.locator(".av-tokens").nth(0).locator(".av-token")
    queries.nth(2).click()
    seen = queries.nth(2).evaluate("e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]")
    assert seen == ["rgb(255, 255, 255)", "rgb(11, 87, 208)"]
    assert page.locator(".av-tokens").nth(0).locator("[data-band]:not([data-band=''])").count() == 0
    titles = page.locator(".av-tokens").evaluate_all("all => all.map(one => one.dataset.title)")
    assert titles == ["these tokens look", "at these tokens"]


def test_small_maps_of_layers_with_unequal_heads_stand_in_a_row_each(open_viewer):
    from attnlib.layout import TokenLayout
    from attnlib.record import AttentionRecord
    from attnlib.widgets import viewer

    generator = torch.Generator().manual_seed(3)
    weights = [torch.softmax(torch.randn(1, h, 16, 16, generator=generator), dim=-1) for h in (2, 5, 3)]
    record = AttentionRecord.from_weights(weights, layout=TokenLayout((3, 5), 13, ("class",), readout=(0,)))
    picture = np.random.default_rng(5).integers(0, 255, (39, 65, 3), dtype=np.uint8)
    page = open_viewer(viewer(record, picture, small_maps="all"))
    boxes = page.locator(".av-multiples button").evaluate_all(
        "all => all.map(e => [e.offsetLeft, e.offsetTop])"
    )
    tops = [top for _, top in boxes]
    assert len(set(tops[:2])) == len(set(tops[2:7])) == len(set(tops[7:])) == 1
    assert tops[0] < tops[2] < tops[7]
    assert boxes[0][0] == boxes[2][0] == boxes[7][0]
    page.get_by_role("button", name="layer 1, head 4").focus()
    for key, place in (
        ("ArrowDown", "layer 2, head 2"),
        ("ArrowUp", "layer 1, head 2"),
        ("ArrowUp", "layer 0, head 1"),
    ):
        page.keyboard.press(key)
        assert page.locator(".av-caption").first.inner_text().startswith(place)
