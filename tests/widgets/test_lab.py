"""One real JupyterLab: fragment, live viewer and explorer, driven by keyboard; nothing leaves the machine."""

import contextlib
import io
import re

import nbformat
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import TimeoutError as PlaywrightTimeout

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SCENE = """
import numpy as np, torch
from attnlib import AttentionRecord, TokenLayout
from attnlib.picture import Picture
from attnlib.widgets import viewer
generator = torch.Generator().manual_seed(11)
weights = [torch.softmax(3 * torch.randn(1, 2, 36, 36, generator=generator), dim=-1) for _ in range(3)]
record = AttentionRecord.from_weights(weights, layout=TokenLayout((5, 7), 13, ("class",), readout=(0,)))
picture = Picture(np.random.default_rng(5).integers(0, 255, (65, 91, 3), dtype=np.uint8), "noise.png")
"""


def write(folder, name, *cells, metadata=None):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(notebook, folder / name)


def pixels(locator):
    return np.asarray(Image.open(io.BytesIO(locator.screenshot())).convert("RGB"), np.int16)


def stands(lab):
    """Nothing failed in the page and nothing was asked of another machine."""
    assert lab.page.errors == []
    assert lab.page.outside == []


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_a_fragment_follows_the_keys_and_the_theme(lab, lab_folder, theme):
    write(lab_folder, "fragment.ipynb", SCENE, "viewer(record, picture)")
    lab.open("fragment.ipynb")
    lab.page.evaluate(
        "(theme) => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme
    )
    assert lab.run_all() == []
    box = lab.page.locator(".attnlib-viewer")
    box.wait_for(state="visible", timeout=30_000)
    expected = "dark" if "Dark" in theme else "light"
    lab.page.wait_for_selector(f".attnlib-viewer[data-theme={expected}]")
    canvas = box.locator(".av-canvas").first
    canvas.scroll_into_view_if_needed()
    before = pixels(canvas)
    box.get_by_label("layer", exact=True).focus()
    lab.page.keyboard.press("ArrowLeft")  # a native slider loses its arrows to JupyterLab unless it says no
    assert box.locator(".av-caption").first.inner_text().startswith("layer 1")
    assert np.abs(pixels(canvas) - before).mean() > 1
    canvas.focus()
    lab.page.keyboard.press("ArrowRight")
    assert "where patch (2, 3) looks" in box.locator(".av-caption").first.inner_text()
    stands(lab)


def test_two_views_of_one_output_both_run(lab, lab_folder):
    write(lab_folder, "twice.ipynb", SCENE, "view = viewer(record, picture)\nview", "view")
    lab.open("twice.ipynb")
    assert lab.run_all() == []
    lab.page.wait_for_function("() => document.querySelectorAll('.attnlib-viewer[data-tick]').length === 2")
    stands(lab)


def test_python_reads_and_sets_a_live_viewer_and_answers_for_single_heads(lab, lab_folder):
    cells = [
        "live = viewer(record, picture, budget_mb=0).widget()\nlive",
        "live.choose(layer=0, head=1, heads='one')",
    ]
    write(lab_folder, "live.ipynb", SCENE, *cells, "print('chosen', live.state['a']['query'])")
    lab.open("live.ipynb")
    assert lab.run_all() == []
    box = lab.page.locator(".attnlib-viewer").first
    lab.page.wait_for_function(
        "() => document.querySelector('.av-caption')?.textContent.startsWith('layer 0, head 1')",
        timeout=30_000,
    )
    box.locator(".av-canvas").first.focus()
    lab.page.keyboard.press("ArrowDown")
    lab.page.wait_for_function(
        "() => /^layer 0, head 1, where patch/.test(document.querySelector('.av-caption').textContent)"
    )
    generator = __import__("torch").Generator().manual_seed(11)
    import torch

    first = torch.softmax(3 * torch.randn(1, 2, 36, 36, generator=generator), dim=-1)
    told = re.search(r": ([\d.e+-]+) \(exact\)", box.locator(".av-value").first.inner_text())
    token = 1 + 2 * 7 + 3
    assert float(told[1]) == pytest.approx(float(first[0, 1, token, token]), rel=6e-3)
    lab.page.evaluate(
        """() => { const p = window.jupyterapp.shell.currentWidget; p.content.activeCellIndex = 3;
          return window.jupyterapp.commands.execute('notebook:run-cell'); }"""
    )
    assert "chosen [2, 3]" in lab.page.locator(".jp-OutputArea-output pre").last.inner_text()
    stands(lab)


def test_the_explorer_opens_and_its_controls_chart_and_viewer_move_together(lab, lab_folder):
    cell = (
        "from attnlib import explore\nbench = explore(record, picture, method='rollout', regions=None)\nbench"
    )
    write(
        lab_folder, "explorer.ipynb", SCENE, cell, "assert bench.wait(60)\nprint('state', bench.state.layer)"
    )
    lab.open("explorer.ipynb")
    change = "(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })"
    lab.page.evaluate(change, "JupyterLab Light")  # whatever JupyterLab was left with
    lab.page.wait_for_selector("body[data-jp-theme-light=true]", state="attached")
    assert lab.run_all() == []
    box = lab.page.locator(".attnlib-viewer").first
    box.wait_for(state="visible", timeout=60_000)
    layer = lab.page.get_by_label("layer", exact=True).first
    layer.fill("1")
    layer.press("Enter")
    lab.page.wait_for_function(
        "() => document.querySelector('.av-caption')?.textContent.startsWith('layer 1')", timeout=20_000
    )
    lab.page.get_by_role("button", name="Layers and heads").click()
    lab.page.wait_for_selector(".attnlib-chart[data-tick] .bars", timeout=60_000)
    lab.page.get_by_text("The same numbers as buttons").click()
    lab.page.get_by_role("button", name=re.compile("^layer 0")).click()
    lab.page.wait_for_function(
        "() => document.querySelector('.av-caption')?.textContent.startsWith('layer 0')", timeout=20_000
    )
    lab.page.locator(".attnlib-chart .bars .point path").nth(2).click(force=True)
    lab.page.wait_for_function(
        "() => document.querySelector('.av-caption')?.textContent.startsWith('layer 2')", timeout=20_000
    )
    ink = """() => [...new Set([...document.querySelectorAll(".attnlib-chart :is([class$=tick], .infolayer) text")]
      .map((one) => getComputedStyle(one).fill))].join()"""
    assert "),rgb" not in lab.page.evaluate(ink)  # one ink for both charts
    before = lab.page.evaluate(ink)
    width = "() => document.querySelector('.attnlib-chart .main-svg').getBoundingClientRect().width"
    drawn = lab.page.evaluate(width)
    lab.page.get_by_role("button", name="Take it away").click()
    lab.page.evaluate(change, "JupyterLab Dark")  # while the chart is not there
    lab.page.wait_for_function("() => document.body.dataset.jpThemeLight === 'false'")
    lab.page.get_by_role("button", name="Layers and heads").click()
    lab.page.wait_for_selector(".attnlib-chart[data-tick] .xtick text")
    lab.page.wait_for_function(f"(before) => ({ink})() !== before", arg=before, timeout=20_000)
    assert "),rgb" not in lab.page.evaluate(ink)
    lab.page.wait_for_function(f"(drawn) => ({width})() === drawn", arg=drawn, timeout=20_000)
    lab.page.evaluate(change, "JupyterLab Light")
    lab.page.wait_for_function(f"(before) => ({ink})() === before", arg=before, timeout=20_000)
    stands(lab)


def test_a_picture_pasted_into_the_explorer_is_explained(lab, lab_folder):
    cell = "from attnlib import explore\nb = explore('scenes-vit', picture, regions=None)\nb"
    write(
        lab_folder,
        "paste.ipynb",
        SCENE,
        cell,
        "print('now', b.wait(60), b.state.picture, b.bench.picture.size)",
    )
    lab.open("paste.ipynb")
    assert lab.run_all() == []
    page = lab.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=lab.address)
    page.locator(".attnlib-viewer[data-tick]").wait_for(state="visible", timeout=60_000)
    page.evaluate(
        """async () => { const c = new OffscreenCanvas(61, 47); c.getContext('2d').fillRect(3, 5, 30, 20);
          const blob = await c.convertToBlob({type: 'image/png'});
          await navigator.clipboard.write([new ClipboardItem({'image/png': blob})]); }"""
    )
    page.locator(".av-canvas").first.focus()
    page.keyboard.press("Control+v")
    page.wait_for_function(
        "() => [...document.querySelectorAll('input')].some((one) => one.value === 'pasted picture')",
        timeout=30_000,
    )
    page.evaluate(
        """() => { const p = window.jupyterapp.shell.currentWidget; p.content.activeCellIndex = 2;
          return window.jupyterapp.commands.execute('notebook:run-cell'); }"""
    )
    assert "now True pasted picture (47, 61)" in page.locator(".jp-OutputArea-output pre").last.inner_text()
    stands(lab)


def test_notebook_7_runs_the_fragment_too(lab, lab_folder):
    write(lab_folder, "seven.ipynb", SCENE, "viewer(record, picture)")
    page = lab.page
    page.goto(f"{lab.address}/notebooks/seven.ipynb", wait_until="domcontentloaded")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=90_000)
    box = page.locator(".attnlib-viewer[data-tick]")
    for _ in range(6):  # Notebook 7 drops the command while its kernel is still starting
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        with contextlib.suppress(PlaywrightTimeout):
            box.wait_for(state="visible", timeout=20_000)
            break
    box.wait_for(state="visible", timeout=20_000)
    box.get_by_label("layer", exact=True).focus()
    page.keyboard.press("ArrowLeft")
    assert box.locator(".av-caption").first.inner_text().startswith("layer 1")
    assert page.outside == []  # Notebook 7 itself logs plugin errors when it runs under JupyterLab's server


def test_an_untrusted_saved_notebook_shows_the_poster(lab, lab_folder):
    from nbclient import NotebookClient

    write(lab_folder, "saved.ipynb", SCENE, "viewer(record, picture)")
    notebook = nbformat.read(lab_folder / "saved.ipynb", 4)
    NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    nbformat.write(notebook, lab_folder / "saved.ipynb")
    lab.open("saved.ipynb")
    poster = lab.page.locator(".jp-OutputArea img[alt*='layer 2, mean over heads']")
    poster.first.wait_for(state="visible", timeout=30_000)
    assert pixels(poster.first).std() > 10
    assert lab.page.locator(".attnlib-viewer").count() == 0
    stands(lab)


HOSTILE_EXPLORER = """
from dataclasses import replace
from attnlib import Regions, explore
from attnlib.record import Provenance
evil = '</script><img src=x onerror="window.__ran=1;alert(1)"><script>window.__ran=1</script>'
mask = np.zeros((65, 91)); mask[13:39, 26:65] = 1
record = replace(record, provenance=Provenance(model=evil, source=evil, notes=(evil,)))
b = explore(record, Picture(picture.pixels, evil), regions=Regions.from_masks({evil: mask}))
b.wait(60)
b.bench.findings.notes.append(evil)
b.bench.findings.said = (evil,)
b.menu.offer_targets((evil, 'fine'))
b.show()
b.menu.target.value = evil
b.chart.words = evil
b.write()
b
"""


def test_hostile_names_run_in_no_corner_of_the_explorer(lab, lab_folder):
    saved = "b.downloads.children[0].children[0].value = evil\nb._guard(lambda: 1 / 0)()\nb.menu.query.value = evil"
    write(
        lab_folder, "hostile.ipynb", SCENE, HOSTILE_EXPLORER, saved, "b.menu.picture.value = evil + '.png'\nb"
    )
    lab.open("hostile.ipynb")
    assert lab.run_all() == []
    page = lab.page
    page.locator(".attnlib-viewer[data-tick]").first.wait_for(state="visible", timeout=60_000)
    for name in ("Parts of the picture", "Layers and heads", "Take it away", "What the map says"):
        page.get_by_role("button", name=name).first.click()
        page.wait_for_timeout(300)
    page.get_by_role("button", name="Take it away").first.click()
    page.get_by_role("button", name="Save YAML").first.click()
    page.get_by_role("button", name="Show", exact=True).first.click()  # there is no such picture
    page.get_by_role("alert").first.wait_for(state="visible", timeout=20_000)
    assert page.evaluate("() => window.__ran") is None
    assert page.dialogs == []
    assert page.evaluate("() => document.querySelectorAll('img[src=x]').length") == 0
    stands(lab)
