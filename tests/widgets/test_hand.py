"""The viewer under a hand that does not wait: pointers, keys, zoom, sharp screens, themes, kernels that fail."""

import json

import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.browser


@pytest.fixture
def shown(scene):
    from attnlib.widgets import viewer

    return viewer(scene["record"], scene["picture"], regions=scene["regions"])


@pytest.fixture
def page(shown, open_viewer):
    page = open_viewer(shown)
    settle(page)
    yield page
    assert page.errors == []


def settle(page):
    page.wait_for_function("() => !document.querySelector('.av-message:not([hidden])')")


def caption(page, n=0):
    return page.locator(".av-caption").nth(n).inner_text()


def at(page, row, column, n=0):
    """Where a patch of the 5x7 grid stands on the page."""
    box = page.locator(".av-canvas").nth(n).bounding_box()
    return box["x"] + box["width"] * (column + 0.5) / 7, box["y"] + box["height"] * (row + 0.5) / 5


def test_only_a_whole_press_of_the_first_button_chooses_a_patch(page):
    page.mouse.click(*at(page, 1, 1), button="right")
    page.mouse.move(5, 5)
    page.mouse.down()
    page.mouse.move(*at(page, 2, 2))
    page.mouse.up()
    assert "row: class" in caption(page)
    page.mouse.click(*at(page, 2, 2))
    assert "where patch (2, 2) looks" in caption(page)


def test_arrow_keys_go_on_from_the_query_wherever_it_was_chosen(page):
    page.locator(".av-canvas").first.focus()
    page.keyboard.press("ArrowRight")
    assert "patch (2, 3)" in caption(page)
    page.get_by_label("side by side").check()
    page.mouse.click(*at(page, 4, 5, n=2))
    page.locator(".av-canvas").first.focus()
    page.keyboard.press("ArrowLeft")
    assert "patch (4, 4)" in caption(page)


def test_a_magnified_picture_follows_the_keys(page):
    canvas = page.locator(".av-canvas").first
    canvas.focus()
    for _ in range(4):
        page.keyboard.press("+")
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
    assert "patch (4, 5)" in caption(page)
    box = canvas.bounding_box()
    seen = set()
    for across in range(1, 20):
        for down in range(1, 20):
            page.mouse.move(box["x"] + box["width"] * across / 20, box["y"] + box["height"] * down / 20)
            seen.add(page.locator(".av-value").first.inner_text().split(":")[0])
        if "patch (4, 5)" in seen:
            break
    assert "patch (4, 5)" in seen


def test_a_sharp_screen_gets_as_many_pixels_as_it_has_and_the_same_patches(shown, open_viewer, tmp_path):
    page = open_viewer(shown, device_scale_factor=2)
    settle(page)
    canvas = page.locator(".av-canvas").first
    assert canvas.evaluate("(one) => [one.width, one.clientWidth]") == [1120, 560]
    page.mouse.click(*at(page, 3, 6))
    assert "where patch (3, 6) looks" in caption(page)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="save the shown maps").click()
    waiting.value.save_as(tmp_path / "saved.png")
    with Image.open(tmp_path / "saved.png") as image:
        assert image.width == 2 * 580
    assert page.errors == []


def test_small_maps_say_which_row_they_show(page):
    page.get_by_label("small maps").select_option("heads")
    assert "row class (the head reads it)" in page.locator(".av-which").inner_text()
    page.get_by_label("row", exact=True).select_option("0")
    assert page.locator(".av-multiples button").count() == 2


def test_a_theme_that_changes_is_followed_at_once(sentence, open_viewer):
    from attnlib.widgets import viewer

    page = open_viewer(viewer(sentence["record"]), color_scheme="light")
    page.get_by_label("view", exact=True).select_option("lines")
    ink = "() => getComputedStyle(document.querySelector('.av-text')).color"
    drawn = "() => document.querySelector('.av-text-canvas').toDataURL()"
    light = page.evaluate(ink), page.evaluate(drawn)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("() => document.querySelector('.attnlib-viewer').dataset.theme === 'dark'")
    page.wait_for_function(f"(before) => ({drawn})() !== before", arg=light[1])
    assert page.evaluate(ink) != light[0]
    page.evaluate("() => { document.body.dataset.vscodeThemeKind = 'vscode-light'; }")
    page.wait_for_function("() => document.querySelector('.attnlib-viewer').dataset.theme === 'light'")
    assert page.errors == []


def test_a_token_of_one_list_is_not_taken_for_one_of_the_other(open_viewer):
    from attnlib.layout import TokenLayout
    from attnlib.record import AttentionRecord
    from attnlib.widgets import viewer

    weights = torch.softmax(torch.randn(1, 2, 7, 3, generator=torch.Generator().manual_seed(2)), dim=-1)
    record = AttentionRecord.from_weights([weights], layout=TokenLayout(None, tokens=["a", "b", "c"]))
    page = open_viewer(viewer(record, query=6))
    assert '"token 6" looks most at' in page.locator(".av-status").inner_text()
    page.get_by_label("direction").select_option("to")
    assert "All tokens together" in page.locator(".av-status").inner_text()
    page.locator(".av-token", has_text="b").first.click()
    assert '"b" is looked at most by' in page.locator(".av-status").inner_text()
    assert page.errors == []


HOST = """<!doctype html><body><div id="place"></div><script type="module">
{module}
const documents = {documents};
const values = {{ document: documents[0], state: {state}, blob: fromBase64("{blob}") }};
const heard = {{}};
window.asked = [];
const model = {{
  get: (key) => values[key],
  set(key, value) {{ model.take({{ [key]: value }}); }},
  take(change) {{ // as a notebook's model does: all values first, then every change is told, in the order given
    const news = Object.keys(change).filter((key) => JSON.stringify(values[key]) !== JSON.stringify(change[key]));
    Object.assign(values, change);
    for (const key of news) for (const react of [...(heard[`change:${{key}}`] ?? [])]) react();
  }},
  save_changes() {{}},
  send(content) {{ window.asked.push(content); }},
  tell(content, buffers) {{ for (const react of [...heard["msg:custom"]]) react(content, buffers); }},
  on: (event, react) => (heard[event] ??= []).push(react),
  off: (event, react) => {{ heard[event] = (heard[event] ?? []).filter((one) => one !== react); }},
}};
window.model = model;
window.render = render;
window.documents = documents;
render({{ model, el: document.getElementById("place") }});
</script>"""


def hosted(new_page, tmp_path, first, second=None):
    """Open a viewer as a notebook's widget: with a kernel, and with documents that follow one another."""
    import base64

    from attnlib.widgets.fragment import json_for_script, module_source

    documents = [{**one.document, "kernel": True} for one in (first, second) if one is not None]
    text = HOST.format(
        module=module_source(),
        documents=json_for_script(documents),
        state=json_for_script(first.state),
        blob=base64.b64encode(first.blob).decode(),
    )
    path = tmp_path / "host.html"
    path.write_text(text, encoding="utf-8")
    page = new_page()
    page.goto(f"file://{path}")
    page.wait_for_selector(".attnlib-viewer[data-tick]", timeout=20_000)
    return page


@pytest.mark.parametrize("order", [("state", "document", "blob"), ("blob", "document", "state")])
def test_a_new_document_and_its_state_are_shown_in_whatever_order_they_are_told(
    scene, new_page, tmp_path, order
):
    import base64

    from attnlib import explain
    from attnlib.widgets import viewer

    first = viewer(scene["record"].select(layers=[0]), scene["picture"], budget_mb=0)
    second = viewer(
        scene["record"], scene["picture"], relevances={"rollout": explain(scene["record"])}, budget_mb=0
    )
    page = hosted(new_page, tmp_path, first, second)
    state = {**second.state, "a": {**second.state["a"], "map": 1, "layer": 2}}
    page.evaluate(
        """([order, state, blob]) => {
          const all = { state, document: documents[1], blob: Uint8Array.from(atob(blob), (c) => c.charCodeAt(0)) };
          model.take(Object.fromEntries(order.map((key) => [key, all[key]]))); }""",
        [list(order), json.loads(json.dumps(state)), base64.b64encode(second.blob).decode()],
    )
    page.wait_for_function("() => document.querySelector('.av-caption').textContent.startsWith('rollout')")
    page.get_by_label("layer", exact=True).fill("2")
    assert caption(page).startswith("layer 2")
    assert page.errors == []


def test_the_kernel_is_asked_for_one_map_at_a_time_and_its_refusal_is_told(scene, new_page, tmp_path):
    from attnlib.widgets import viewer

    page = hosted(new_page, tmp_path, viewer(scene["record"], scene["picture"], budget_mb=0))
    page.locator(".av-canvas").first.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("() => asked.length") == 1
    answer = "(content) => model.tell({ answer: asked.at(-1).ask, ...content }, content.error ? [] : [new Float32Array(35)])"
    page.evaluate(answer, {"prefix": 0.5})
    page.wait_for_function("() => asked.length === 2")
    assert page.evaluate("() => asked[1].request.query") == [2, 6]
    page.evaluate(answer, {"error": "the kernel could not answer: out of memory"})
    page.wait_for_function(
        "() => document.querySelector('.av-message').textContent.includes('out of memory')"
    )
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => asked.length === 3")
    assert "asking the kernel" in page.locator(".av-message").first.inner_text()
    assert page.errors == []


def test_what_is_held_as_a_mean_is_never_drawn_as_a_maximum(scene, new_page, tmp_path):
    from attnlib.widgets import viewer

    page = hosted(new_page, tmp_path, viewer(scene["record"], scene["picture"]))
    page.locator(".av-canvas").first.focus()
    page.keyboard.press("ArrowRight")
    settle(page)
    page.get_by_label("heads", exact=True).select_option("max")
    assert "asking the kernel" in page.locator(".av-message").first.inner_text()
    assert page.errors == []


def test_an_answer_for_another_view_or_an_earlier_picture_is_not_taken(scene, new_page, tmp_path):
    from attnlib.widgets import viewer

    packed = viewer(scene["record"], scene["picture"], budget_mb=0)
    page = hosted(new_page, tmp_path, packed, packed)
    page.evaluate("""() => { const el = document.createElement("div"); el.id = "second";
      document.body.append(el); render({ model, el }); }""")
    page.wait_for_selector("#second .attnlib-viewer[data-tick]")
    page.evaluate("() => { model.take({ document: { ...documents[1], title: 'anew' } }); }")
    page.wait_for_selector("#second .attnlib-viewer[aria-label=anew]")
    page.locator("#place .av-canvas").first.focus()
    page.keyboard.press("ArrowRight")
    page.locator("#second .av-canvas").first.focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_function("() => asked.length >= 2")
    asked = page.evaluate("() => asked.map((one) => one.ask)")
    assert len(set(asked)) == len(asked)
    assert page.errors == []


def test_a_single_head_of_a_long_text_comes_from_the_kernel(sentence, new_page, tmp_path):
    from attnlib.widgets import viewer

    packed = viewer(sentence["record"], layer=1, budget_mb=0.0002)  # room for the mean over the heads only
    assert any(block["merged"] for block in packed.document["sources"][0]["blocks"])
    page = hosted(new_page, tmp_path, packed)
    page.get_by_label("head", exact=True).fill("1")
    assert "asking the kernel" in page.locator(".av-message").first.inner_text()
    assert page.evaluate("() => asked[0].request.head") == 1
    page.evaluate(
        "(values) => model.tell({ answer: asked[0].ask }, [new Float32Array(values)])",
        sentence["weights"][1][0, 1].flatten().tolist(),
    )
    settle(page)
    assert caption(page).endswith("layer 1, head 1")
    page.locator(".av-token", has_text="field").click()
    page.locator(".av-token", has_text="play").hover()
    value = page.locator(".av-value").first.inner_text()
    assert f"{float(sentence['weights'][1][0, 1, 4, 2]):.3g} (exact)" in value
    assert page.errors == []


def test_without_a_kernel_the_mean_of_heads_is_not_called_a_head(sentence, open_viewer):
    from attnlib.widgets import viewer

    page = open_viewer(viewer(sentence["record"], layer=1, budget_mb=0.0002))
    settle(page)
    page.get_by_label("head", exact=True).fill("1")
    assert caption(page).endswith("layer 1, head 1 (held: mean of heads)")
    assert "mean over the heads" in page.locator(".av-notes").inner_text()


def test_a_state_from_outside_is_kept_to_what_there_is(scene, new_page, tmp_path):
    from attnlib.widgets import viewer

    page = hosted(new_page, tmp_path, viewer(scene["record"], scene["picture"]))
    page.evaluate(
        """() => model.take({ state: { ...model.get("state"),
          a: { layer: 99, layers: "one", head: 7, heads: "one", query: [9, 9], map: 4, source: 2 } } })"""
    )
    page.wait_for_function(
        "() => document.querySelector('.av-caption').textContent.startsWith('layer 2, head 1, row')"
    )
    assert page.errors == []
