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
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from openings import FIRST, FRESH, PARTS

from attnlib import AttentionRecord, TokenLayout, capture, explain, explore, load_model, load_picture
from attnlib.finders import find_regions
from attnlib.report import run_report
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


def reports(folder: Path) -> list[str]:
    """Size of the report of the embedded model at two sizes, everything counted."""
    lines = ["| report at | page MB | aim |", "| --- | --- | --- |"]
    for pixels, aim in ((224, 3), (518, 8)):
        path = run_report("90_report", folder / f"report{pixels}.html", {"size": pixels})
        lines.append(f"| {pixels} px | {path.stat().st_size / 1e6:.2f} | {aim} |")
        print(lines[-1], flush=True)
    return lines


def opening() -> list[str]:
    """Time to open the explorer, model load included, and until everything is there."""
    lines = [
        "| what | opened after s | the method's map after s | all there after s |",
        "| --- |" + " --- |" * 3,
    ]
    cases = [
        ("dinov2-small-saliency", "sample:poster, 518x518 px", "sample:poster", (518, 518)),
        ("dinov2-small-saliency", "sample:poster, 224x224 px", "sample:poster", (224, 224)),
        ("minilm-l6", "two sentences", None, None),
    ]
    for model, words, source, size in cases:
        times = []
        for _ in range(3):
            start = time.perf_counter()
            opened = explore(load_model(model), source, size=size)
            opened._repr_mimebundle_()
            first = time.perf_counter() - start
            while not opened.viewer.state["a"]["map"]:
                time.sleep(0.01)
            mapped = time.perf_counter() - start
            opened.wait()
            times.append((first, mapped, time.perf_counter() - start))
        told = [", ".join(f"{one:.1f}" for one in column) for column in zip(*times, strict=True)]
        lines.append(f"| {model}, {words} | {' | '.join(told)} |")
        print(lines[-1], flush=True)
    for words, before in FIRST.items():
        code = FRESH.replace("{before}", before)
        fresh = [
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
            for _ in range(3)
        ]
        told = [", ".join(column) for column in zip(*(one.split() for one in fresh), strict=True)]
        lines.append(f"| {words} | {' | '.join(told)} |")
        print(lines[-1], flush=True)
    return lines


def parts() -> list[str]:
    """Processor time of every part of a first opening from a fresh Python, on one thread.

    Processor time stays true when others use the machine. In an opening the model runs on all cores, and the
    search for parts of the picture beside the loading of the model.
    """
    command = [sys.executable, "-c", PARTS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    told: dict[str, list[float]] = {}
    for _ in range(3):
        run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        for line in run.stdout.splitlines():
            name, taken = line.rsplit(" | ", 1)
            told.setdefault(name, []).append(float(taken))
    told["all of it"] = [sum(column) for column in zip(*told.values(), strict=True)]
    lines = ["| part of a first opening, 518x518 px | processor seconds, three runs |", "| --- | --- |"]
    lines += [f"| {name} | {', '.join(f'{one:.2f}' for one in taken)} |" for name, taken in told.items()]
    print("\n".join(lines), flush=True)
    return lines


def steps() -> list[str]:
    """Time of each step behind the opening, one after another."""
    lines = ["| step, 518x518 px | s |", "| --- | --- |"]
    model, picture = load_model("dinov2-small-saliency"), load_picture("sample:poster")
    prepared = model.prepare(picture, size=(518, 518))

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        lines.append(f"| {name} | {time.perf_counter() - start:.2f} |")
        print(lines[-1], flush=True)
        return result

    record = timed("capture", lambda: capture(model, prepared))
    timed(
        "packing, no patch queries (the explorer's first picture)",
        lambda: viewer(record, picture, budget_mb=0),
    )
    timed("packing again", lambda: viewer(record, picture, budget_mb=0))
    full = timed("packing, patch queries within 3 MB", lambda: viewer(record, picture))
    timed("writing the fragment", full.to_html)
    timed("rollout", lambda: explain(record))
    timed("finding text and faces", lambda: find_regions(picture))
    return lines


def first_picture(folder: Path) -> list[str]:
    """Time from running a cell in a real JupyterLab to the painted viewer."""
    tests = HERE.parent / "tests" / "widgets" / "conftest.py"
    found = importlib.util.spec_from_file_location("lab_fixtures", tests)
    fixtures = importlib.util.module_from_spec(found)
    found.loader.exec_module(fixtures)
    import nbformat

    light = "viewer(record_of_picture(37, 12, 12), load_picture('sample:poster'), budget_mb=0)"
    cells = [
        f"import sys; sys.path.insert(0, {str(HERE)!r})\nfrom viewer import *\n"
        f"shown = viewer(record_of_picture(37, 12, 12), load_picture('sample:poster'))\nlight = {light}",
        "shown",
        "light",
        "print('ready')",
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
    watch = """(n) => { const start = performance.now(); const p = window.jupyterapp.shell.currentWidget;
      const cell = p.content.widgets[n].node; window.__shown = new Promise((keep) => { let poster = 0;
      const since = () => performance.now() - start;
      const look = () => { if (!poster && cell.querySelector('.attnlib-root')) poster = since();
        if (cell.querySelector('.attnlib-viewer[data-tick]')) keep([poster, since()]);
        else requestAnimationFrame(look); }; look(); });
      p.content.activeCellIndex = n; window.jupyterapp.commands.execute('notebook:run-cell'); }"""
    names = {1: "with patch queries (3 MB)", 2: "without them"}
    taken: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    with fixtures.lab_server(work, home, quiet) as address, browser() as chromium:
        page = chromium.new_context(viewport={"width": 1280, "height": 1000}).new_page()
        lab = fixtures.Lab(page, address)
        for _ in range(3):
            lab.open("first.ipynb")
            page.evaluate(run, 0)
            page.evaluate(run, 3)
            for number, times in taken.items():
                page.evaluate(watch, number)
                times.append(tuple(page.evaluate("() => window.__shown")))
            lab.command("kernelmenu:shutdown")
    lines = ["| 37x37 x 12 x 12 in JupyterLab | poster after ms | viewer after ms |", "| --- | --- | --- |"]
    for number, times in taken.items():
        told = [", ".join(f"{one:.0f}" for one in column) for column in zip(*times, strict=True)]
        lines.append(f"| {names[number]} | {' | '.join(told)} |")
        print(lines[-1], flush=True)
    return lines


SECTIONS: dict[str, tuple[str, Callable[[Path], list[str]]]] = {
    "keys": ("Key press to painted frame (aim: 16 ms)", latencies),
    "sizes": ("Pages without a kernel", sizes),
    "reports": ("Reports", reports),
    "steps": ("Steps behind an opening", lambda _: steps()),
    "parts": ("Parts of a first opening", lambda _: parts()),
    "opening": ("Opening (aim: 5 s)", lambda _: opening()),
    "lab": ("First picture (aim: 500 ms)", first_picture),
}


def main() -> None:
    """Measure, print and write the table; sections that were not asked for stay as they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(SECTIONS), action="append")
    parser.add_argument("--output", type=Path, default=HERE / "viewer.md")
    chosen = parser.parse_args()
    torch.set_num_threads(2)
    told = sections_of(chosen.output)
    for part in chosen.only or SECTIONS:
        title, measure = SECTIONS[part]
        under = machine()
        with tempfile.TemporaryDirectory() as name:
            told[title] = [under, "", *measure(Path(name))]
        titles = [one for one, _ in SECTIONS.values() if one in told]
        lines = ["# The viewer, measured", "", "Made by `python benchmarks/viewer.py`.", ""]
        for one in titles:
            lines += [f"## {one}", "", *told[one], ""]
        chosen.output.write_text("\n".join(lines).rstrip() + "\n")


def sections_of(path: Path) -> dict[str, list[str]]:
    """Return the lines under each heading of a file that was written before."""
    told: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in path.read_text().splitlines() if path.exists() else ():
        if line.startswith("## "):
            lines = told[line.removeprefix("## ")] = []
        else:
            lines.append(line)
    return {title: "\n".join(body).strip().splitlines() for title, body in told.items()}


def machine() -> str:
    """Say where this was measured."""
    load = os.getloadavg()[0]
    python = sys.version.split()[0]
    return f"{os.cpu_count()} cores, load {load:.1f} before, Python {python}, torch {torch.__version__}."


if __name__ == "__main__":
    main()
