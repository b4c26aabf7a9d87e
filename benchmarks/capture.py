"""Time and memory of capturing, against the plain forward pass, as ratios within one run.

``python benchmarks/capture.py`` measures all cases (some fifteen minutes on two quiet cores), ``--part 1``,
``2`` or ``3`` a third of them, ``--quick`` two. Rows go into ``capture.json``; the page ``capture.md`` and
the table of notebook 04 are written anew. Each case is a process of its own; plain runs, runs in which a list
holds on to query, key and value and nothing else is done, and captured runs alternate; medians are given, for
the ratios those of neighbours in time. Memory is the peak above the loaded model that has run once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from operator import truediv
from pathlib import Path
from typing import Any

CASES = {
    "ViT-S/14, 518 px (1,370 tokens), batch 1: capture": ("vit", 518, 1, "capture"),
    "ViT-S/14, 518 px (1,370 tokens), batch 8: capture": ("vit", 518, 8, "capture"),
    "ViT-S/14, 1022 px (5,330 tokens): class-row rollout": ("vit", 1022, 1, "rollout"),
    "ViT-S/14, 2044 px (21,317 tokens): class-row rollout": ("vit", 2044, 1, "rollout"),
    "BERT-base, 512 tokens, batch 8: capture": ("bert", 512, 8, "capture"),
    "causal decoder (GPT-2 size), 8,192 tokens: capture": ("gpt2", 8192, 1, "capture"),
}
NAMES = tuple(CASES)
PARTS = {"1": (NAMES[0], NAMES[1], NAMES[2]), "2": (NAMES[3],), "3": (NAMES[4], NAMES[5])}
QUICK = (NAMES[0], NAMES[4])
REPEATS = {NAMES[0]: 15, NAMES[1]: 7, NAMES[2]: 7, NAMES[3]: 3, NAMES[4]: 7, NAMES[5]: 3}
BOUNDS = {NAMES[0]: "1.10", NAMES[1]: "1.10", NAMES[2]: "1.6, 0.6 GB", NAMES[3]: "2.5, 3 GB"}
HERE = Path(__file__).resolve().parent
RESULTS = HERE / "capture.json"
NOTEBOOK = HERE.parent / "notebooks" / "04_long_inputs.ipynb"
CELL = "measured-table"


def make(kind: str, size: int, batch: int) -> tuple[Any, dict[str, Any]]:
    """Build a model of a known size with random weights, and an input."""
    import torch
    import transformers

    torch.manual_seed(0)
    if kind == "vit":
        config = transformers.Dinov2Config(
            hidden_size=384, num_attention_heads=6, num_hidden_layers=12, image_size=518, patch_size=14
        )
        side = size - size % 14
        return transformers.Dinov2Model(config).eval(), {"pixel_values": torch.randn(batch, 3, side, side)}
    if kind == "bert":
        config = transformers.BertConfig(vocab_size=2000)
        return transformers.BertModel(config).eval(), {"input_ids": torch.randint(5, 1999, (batch, size))}
    config = transformers.GPT2Config(vocab_size=2000, n_positions=size)
    model = transformers.GPT2Model(config).eval()
    return model, {"input_ids": torch.randint(5, 1999, (batch, size)), "use_cache": False}


class Peak:
    """Highest resident memory while the block runs, above what it was before."""

    def __enter__(self) -> Peak:
        """Start to watch."""
        self._stop = threading.Event()
        self._start = self.highest = _resident()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.highest = max(self.highest, _resident())

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._stop.set()
        self._thread.join()
        self.megabytes = (self.highest - self._start) / 1e6


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def measure(name: str, repeats: int) -> dict[str, Any]:
    """Measure one case in this process."""
    import torch
    from torch.nn import functional

    from attnlib import capture, explain

    fused = functional.scaled_dot_product_attention
    kind, size, batch, what = CASES[name]
    model, inputs = make(kind, size, batch)

    def plain() -> None:
        with torch.no_grad():
            model(**inputs)

    def held() -> None:
        kept = []

        def hold(query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> Any:
            kept.append((query, key, value))
            return fused(query, key, value, *rest, **named)

        functional.scaled_dot_product_attention = hold
        try:
            plain()
        finally:
            functional.scaled_dot_product_attention = fused
        assert len(kept) == 12

    def ours() -> Any:
        record = capture(model, inputs)
        if what == "rollout":
            explain(record, "rollout", query=0)
        return record

    plain()
    record = ours()
    times: dict[str, list[float]] = {"plain": [], "held": [], "ours": []}
    memory: dict[str, float] = {}
    for _ in range(repeats):
        for word, run in (("plain", plain), ("held", held), ("ours", ours)):
            with Peak() as peak:
                times[word].append(_seconds(run))
            memory[word] = max(memory.get(word, 0.0), peak.megabytes)
    result = {
        "case": name,
        "plain s": round(statistics.median(times["plain"]), 3),
        "ratio": round(statistics.median(map(truediv, times["ours"], times["plain"])), 3),
        "held": round(statistics.median(map(truediv, times["held"], times["plain"])), 3),
        "plain MB": round(memory["plain"]),
        "ours MB": round(memory["ours"]),
        "kept MB": round(sum(one.source.nbytes for one in record.layers) / 1e6),
        "repeats": repeats,
    }
    if what == "capture" and kind == "vit" and batch == 1:
        head = [_seconds(lambda: record.layers[5].weights(heads=2)) for _ in range(9)]
        row = [_seconds(lambda: [one.weights(queries=0) for one in record.layers]) for _ in range(9)]
        result["one head ms"] = round(1e3 * statistics.median(head))
        result["one row, all layers ms"] = round(1e3 * statistics.median(row))
    return result


def _seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    columns = (
        "case",
        "plain s",
        "holding q, k, v alone, times plain",
        "with attnlib, times plain",
        "aim",
        "peak MB plain",
        "peak MB with attnlib",
        "kept MB (q, k, v)",
    )
    lines = [_line(columns), _line(["---"] * len(columns))]
    for row in rows:
        if "failed" in row:
            lines.append(_line([row["case"], "did not run", *[""] * (len(columns) - 2)]))
            continue
        ratios = (f"{row[word]:.2f}" if word in row else "not measured" for word in ("held", "ratio"))
        memory = (row[f"{word} MB"] for word in ("plain", "ours", "kept"))
        lines.append(_line([row["case"], row["plain s"], *ratios, BOUNDS.get(row["case"], ""), *memory]))
    for row in rows:
        if "one head ms" in row:
            lines += [
                "",
                f"Reading at 1,370 tokens: one head's full matrix in {row['one head ms']} ms, one row of all "
                f"layers and heads in {row['one row, all layers ms']} ms (aim: under 50 ms).",
            ]
    return "\n".join(lines)


def _line(cells: Iterable[Any]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def write_pages(rows: list[dict[str, Any]], load: str) -> None:
    """Write the page and the table of the notebook."""
    body = table(rows)
    said = f"Load of the machine (1 minute, {os.cpu_count()} cores) when the last part began: {load}."
    (HERE / "capture.md").write_text(
        "# What capturing costs\n\n"
        "Plain passes, passes in which a list holds on to query, key and value and nothing else is\n"
        "done, and captured passes alternate in one process for each case; medians of the times and of\n"
        "the ratios of neighbouring runs, highest of the peaks, above the loaded model. Models have\n"
        "random weights and real sizes. The peak of a plain pass is its own activations. Holding alone\n"
        "costs time because memory that would be used again has to come fresh from the operating\n"
        "system: what attnlib itself adds is the difference of the two columns.\n\n"
        f"{body}\n\n{said}\n\n`python benchmarks/capture.py` makes this page again (`--part 1`, `2`, `3` a "
        "part).\n"
    )
    import nbformat

    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.get("id") == CELL:
            cell.source = (
                "## What was measured?\n\n`python benchmarks/capture.py`, on two cores; models of real size "
                f"with random weights.\n\n{body}"
            )
    nbformat.write(notebook, NOTEBOOK)


def main() -> None:
    """Run the cases, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--part", choices=sorted(PARTS))
    parser.add_argument("--page", action="store_true", help="only write the pages from capture.json")
    options = parser.parse_args()
    if options.one:
        print("RESULT " + json.dumps(measure(options.one, options.repeats or REPEATS[options.one])))
        return
    known = {row["case"]: row for row in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    load = f"{os.getloadavg()[0]:.1f}"
    chosen = QUICK if options.quick else PARTS.get(options.part, NAMES)
    for name in [] if options.page else chosen:
        command = [sys.executable, __file__, "--one", name]
        if options.repeats:
            command += ["--repeats", str(options.repeats)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = [line[7:] for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        known[name] = json.loads(found[0]) if found else {"case": name, "failed": done.stderr[-300:]}
        print(known[name], flush=True)
        RESULTS.write_text(json.dumps([known[one] for one in NAMES if one in known], indent=1) + "\n")
    write_pages([known[one] for one in NAMES if one in known], load)


if __name__ == "__main__":
    main()
