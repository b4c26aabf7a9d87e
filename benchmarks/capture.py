"""Time and memory of capturing, against the plain forward pass, as ratios within one run.

``python benchmarks/capture.py [--quick] [--out FILE]``. Each measurement is a process of its own; plain and
captured runs alternate, and medians are given. Memory is the peak above the loaded model that has run once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CASES = {
    "ViT-S/14, 518 px, batch 1: capture": ("vit", 518, 1, "capture"),
    "ViT-S/14, 518 px, batch 8: capture": ("vit", 518, 8, "capture"),
    "ViT-S/14, 1022 px (5,330 tokens): class-row rollout": ("vit", 1022, 1, "rollout"),
    "ViT-S/14, 2044 px (21,317 tokens): class-row rollout": ("vit", 2044, 1, "rollout"),
    "BERT-base, 512 tokens: capture": ("bert", 512, 1, "capture"),
    "causal decoder (GPT-2 size), 8,192 tokens: capture": ("gpt2", 8192, 1, "capture"),
}
QUICK = ("ViT-S/14, 518 px, batch 1: capture", "BERT-base, 512 tokens: capture")


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

    from attnlib import capture, explain

    kind, size, batch, what = CASES[name]
    model, inputs = make(kind, size, batch)

    def plain() -> None:
        with torch.no_grad():
            model(**inputs)

    def ours() -> Any:
        record = capture(model, inputs)
        if what == "rollout":
            explain(record, "rollout", query=0)
        return record

    plain()
    record = ours()
    times: dict[str, list[float]] = {"plain": [], "ours": []}
    memory: dict[str, float] = {}
    for _ in range(repeats):
        for word, run in (("plain", plain), ("ours", ours)):
            with Peak() as peak:
                times[word].append(_seconds(run))
            memory[word] = max(memory.get(word, 0.0), peak.megabytes)
    result = {
        "case": name,
        "plain s": round(statistics.median(times["plain"]), 3),
        "ratio": round(statistics.median(times["ours"]) / statistics.median(times["plain"]), 3),
        "plain MB": round(memory["plain"]),
        "ours MB": round(memory["ours"]),
        "kept MB": round(sum(one.source.nbytes for one in record.layers) / 1e6),
        "repeats": repeats,
    }
    if what == "capture" and kind == "vit" and batch == 1:
        result["one head ms"] = round(1e3 * _seconds(lambda: record.layers[5].weights(heads=2)))
        result["one row, all layers ms"] = round(
            1e3 * _seconds(lambda: [one.weights(queries=0) for one in record.layers])
        )
    return result


def _seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.one:
        print("RESULT " + json.dumps(measure(options.one, options.repeats)))
        return
    rows = []
    for name in QUICK if options.quick else CASES:
        command = [sys.executable, __file__, "--one", name, "--repeats", str(options.repeats)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = [line[7:] for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        row = json.loads(found[0]) if found else {"case": name, "failed": done.stderr[-300:]}
        rows.append(row)
        print(row, flush=True)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
