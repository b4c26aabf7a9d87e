"""How fast the viewer answers, how large its pages are, how long the explorer takes to open.

Run ``python benchmarks/viewer.py``; it writes ``benchmarks/viewer.md``. Needs Chromium (Debian's package)
and playwright. A key press is timed in the page, from the key event to the frame after the drawing has
been handed to the compositor (requestAnimationFrame, then a message); medians of 30 presses.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from attnlib import AttentionRecord, TokenLayout, capture, explain, explore, load_model, load_picture
from attnlib.widgets import viewer

HERE = Path(__file__).resolve().parent
PRESSES = 30
_TIMER = """() => {
  window.__key = { at: 0 };
  document.addEventListener('keydown', () => { window.__key.at = performance.now(); }, true);
  window.__painted = () => new Promise((keep) => {
    const box = document.querySelector('.attnlib-viewer');
    const seen = new MutationObserver(() => {
      seen.disconnect();
      requestAnimationFrame(() => {
        const channel = new MessageChannel();
        channel.port1.onmessage = () => keep(performance.now() - window.__key.at);
        channel.port2.postMessage(0);
      });
    });
    seen.observe(box, { attributes: true, attributeFilter: ['data-tick'] });
  });
}"""


@contextmanager
def browser() -> Iterator:
    """Run a headless Chromium."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("ATTNLIB_CHROMIUM", "/usr/bin/chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


def maps(layers: int, heads: int, tokens: int) -> list[torch.Tensor]:
    """Return random attention with the shapes of a model."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.softmax(2 * torch.randn(1, heads, tokens, tokens, generator=generator), -1)
        for _ in range(layers)
    ]


def record_of_picture(side: int, layers: int, heads: int) -> AttentionRecord:
    """Return a record over a square grid with a class token."""
    layout = TokenLayout((side, side), 14, ("class",), readout=(0,))
    return AttentionRecord.from_weights(maps(layers, heads, side * side + 1), layout=layout)


def record_of_text(tokens: int, layers: int, heads: int) -> AttentionRecord:
    """Return a record over tokens of text."""
    words = [f"token{i}" for i in range(tokens)]
    return AttentionRecord.from_weights(
        maps(layers, heads, tokens), layout=TokenLayout(None, tokens=words, readout=(0,))
    )


def press(page, focus: str, keys: tuple[str, str]) -> tuple[float, float, float]:
    """Press a key 30 times; return median, 90th percentile and median of the first ten, in ms.

    The first ten show what was not shown before; the others come back to it.
    """
    page.evaluate(_TIMER)
    page.locator(focus).first.focus()
    page.keyboard.press("End")
    taken = []
    for n in range(PRESSES):
        waiting = page.evaluate_handle("() => { window.__wait = window.__painted(); }")
        page.keyboard.press(keys[0] if (n // 10) % 2 == 0 else keys[1])
        taken.append(page.evaluate("() => window.__wait"))
        waiting.dispose()
        page.wait_for_timeout(30)
    return statistics.median(taken), sorted(taken)[int(0.9 * PRESSES)], statistics.median(taken[:10])


def latencies(folder: Path) -> list[str]:
    """Time key presses for a picture and for text."""
    lines = ["| what | median ms | p90 ms | first visits ms | page MB | ready s |", "| --- |" + " --- |" * 5]
    picture = load_picture("sample:poster")
    across, down = ("ArrowLeft", "ArrowRight"), ("ArrowDown", "ArrowUp")
    image = viewer(record_of_picture(37, 12, 12), picture)
    text = viewer(record_of_text(256, 12, 12))
    slider = "[aria-label=layer]"
    cases = [
        ("37x37 patches, 12 layers x 12 heads, layer slider", image, slider, across, None),
        ("the same, arrow keys choose the query patch", None, ".av-canvas", across, None),
        ("the same, with all 144 small maps", None, slider, across, ("small maps", "all")),
        ("256 tokens, 12 layers x 12 heads, text", text, slider, across, None),
        ("the same, matrix", None, slider, across, ("view", "matrix")),
        ("the same, lines of one token", None, ".av-text-canvas", down, ("view", "lines")),
    ]
    with browser() as chromium:
        page, size, ready = None, 0.0, 0.0
        for name, shown, focus, keys, setting in cases:
            if shown is not None:
                path = shown.save_html(folder / f"{abs(hash(name))}.html")
                size = path.stat().st_size / 1e6
                context = chromium.new_context(offline=True, viewport={"width": 1280, "height": 1000})
                page = context.new_page()
                start = time.perf_counter()
                page.goto(f"file://{path}", wait_until="commit")
                page.wait_for_selector(".attnlib-viewer[data-tick]")
                ready = time.perf_counter() - start
                page.wait_for_timeout(4000)
            if setting is not None:
                page.get_by_label(setting[0], exact=True).select_option(setting[1])
            middle, high, fresh = press(page, focus, keys)
            lines.append(f"| {name} | {middle:.1f} | {high:.1f} | {fresh:.1f} | {size:.2f} | {ready:.2f} |")
            print(lines[-1], flush=True)
    return lines


def sizes(folder: Path) -> list[str]:
    """Sizes of stand-alone pages of the embedded model (ViT-S) at two sizes, with rollout beside it."""
    lines = ["| picture | budget MB | page MB | what patch queries gave up |", "| --- | --- | --- | --- |"]
    model, picture = load_model("dinov2-small-saliency"), load_picture("sample:poster")
    for pixels, budget in ((224, 1.5), (224, 3.0), (518, 3.0), (518, 6.0)):
        record = capture(model, model.prepare(picture, size=(pixels, pixels)))
        shown = viewer(record, picture, relevances={"rollout": explain(record)}, budget_mb=budget)
        path = shown.save_html(folder / "size.html")
        words = "; ".join(shown.document["sources"][0]["query_notes"])
        lines.append(f"| {pixels}x{pixels} px | {budget:g} | {path.stat().st_size / 1e6:.2f} | {words} |")
        print(lines[-1], flush=True)
    return lines


def opening() -> list[str]:
    """Time to open the explorer on the embedded model, model load included."""
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        opened = explore(load_model("dinov2-small-saliency"), "sample:poster", size=(518, 518))
        opened._repr_mimebundle_()
        taken.append(time.perf_counter() - start)
        opened.wait()
    words = ", ".join(f"{one:.1f}" for one in taken)
    print(words, flush=True)
    return [f"Opening the explorer (load, capture, rollout, first picture; 518x518 px): {words} s."]


def first_picture(folder: Path) -> list[str]:
    """Time from running a cell in a real JupyterLab to the painted viewer."""
    tests = HERE.parent / "tests" / "widgets" / "conftest.py"
    found = importlib.util.spec_from_file_location("lab_fixtures", tests)
    fixtures = importlib.util.module_from_spec(found)
    found.loader.exec_module(fixtures)
    import nbformat

    cells = [
        f"import sys; sys.path.insert(0, {str(HERE)!r})\nfrom viewer import *\n"
        "shown = viewer(record_of_picture(37, 12, 12), load_picture('sample:poster'))",
        "shown",
    ]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    work, home = folder / "lab", folder / "home"
    work.mkdir()
    home.mkdir()
    nbformat.write(notebook, work / "first.ipynb")
    quiet = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}
    run = """(n) => { const p = window.jupyterapp.shell.currentWidget; p.content.activeCellIndex = n;
      return window.jupyterapp.commands.execute('notebook:run-cell'); }"""
    watch = """() => { const start = performance.now(); window.__shown = new Promise((keep) => {
      const look = () => document.querySelector('.attnlib-viewer[data-tick]')
        ? keep(performance.now() - start) : requestAnimationFrame(look); look(); });
      const p = window.jupyterapp.shell.currentWidget; p.content.activeCellIndex = 1;
      window.jupyterapp.commands.execute('notebook:run-cell'); }"""
    with fixtures.lab_server(work, home, quiet) as address, browser() as chromium:
        page = chromium.new_context(viewport={"width": 1280, "height": 1000}).new_page()
        lab = fixtures.Lab(page, address)
        taken = []
        for _ in range(3):
            lab.open("first.ipynb")
            page.evaluate(run, 0)
            page.evaluate(watch)
            taken.append(page.evaluate("() => window.__shown"))
            lab.command("kernelmenu:shutdown")
    words = ", ".join(f"{one:.0f}" for one in taken)
    print(words, flush=True)
    return [f"First picture in JupyterLab after its cell was run (37x37 x 12 x 12): {words} ms."]


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["keys", "sizes", "opening", "lab"], action="append")
    parser.add_argument("--output", type=Path, default=HERE / "viewer.md")
    chosen = parser.parse_args()
    wanted = chosen.only or ["keys", "sizes", "opening", "lab"]
    torch.set_num_threads(2)
    told = ["# The viewer, measured", "", "Made by `python benchmarks/viewer.py`; " + machine(), ""]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "keys" in wanted:
            told += ["## Key press to painted frame (aim: 16 ms)", "", *latencies(folder), ""]
        if "sizes" in wanted:
            told += ["## Pages without a kernel", "", *sizes(folder), ""]
        if "opening" in wanted:
            told += ["## Opening (aim: 5 s)", "", *opening(), ""]
        if "lab" in wanted:
            told += ["## First picture (aim: 500 ms)", "", *first_picture(folder), ""]
    chosen.output.write_text("\n".join(told).rstrip() + "\n")


def machine() -> str:
    """Say where this was measured."""
    load = os.getloadavg()[0]
    python = sys.version.split()[0]
    return (
        f"{os.cpu_count()} cores, load {load:.1f} at the start, Python {python}, torch {torch.__version__}."
    )


if __name__ == "__main__":
    main()
