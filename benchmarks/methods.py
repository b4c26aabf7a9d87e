"""Time and memory of every method: ``python benchmarks/methods.py``.

Each measurement is a fresh process; methods are interleaved, so that a busy minute hits all of them.
The model is a ViT-S/14 (12 layers, 6 heads, 384 wide) with random weights: time and memory do not
depend on the weights. Reported per method: seconds for the whole way from pixels to scores (forward,
backward if there is one, method), as a ratio to a plain forward pass of the same process, and the
highest memory above the loaded model after it has run once. Writes methods.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SIDES = {257: 16, 1370: 37, 5330: 73}


def resident(field: str) -> float:
    """Read VmRSS or VmHWM of this process, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1000
    raise RuntimeError(f"no {field} in /proc/self/status: this benchmark needs Linux")


def measure(method: str, tokens: int) -> dict[str, float | str]:
    """Measure one method in this process."""
    import torch
    from transformers import Dinov2Config, Dinov2ForImageClassification

    from attnlib import METHODS, capture, explain
    from attnlib.errors import AttnlibError

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        patch_size=14,
        image_size=518,
        num_labels=10,
    )
    model = Dinov2ForImageClassification(config).eval()
    side = SIDES[tokens] * 14
    pixels = torch.rand(1, 3, side, side)
    inputs = {"pixel_values": pixels}

    def plain() -> tuple[float, float]:
        start, worked = time.perf_counter(), time.process_time()
        with torch.no_grad():
            model(**inputs)
        return time.perf_counter() - start, time.process_time() - worked

    plain()
    tried = [plain() for _ in range(3 if tokens < 5000 else 2)]
    forward, forward_work = (min(column) for column in zip(*tried, strict=True))
    needs = METHODS[method].needs
    options = {"picture": pixels} if method == "edges" else {}
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest memory so far
    before = resident("VmRSS")
    start, worked = time.perf_counter(), time.process_time()
    try:
        record = capture(
            model,
            inputs,
            target=3 if {"gradients", "model"} & set(needs) else None,
            internals="internals" in needs,
        )
        captured = time.perf_counter() - start
        found = explain(record, method, **options)
    except (AttnlibError, ImportError) as error:
        return {"refused": str(error)}
    total, work = time.perf_counter() - start, time.process_time() - worked
    solver = str(found.options.get("solver", ""))
    return {
        "forward": forward,
        "capture": captured,
        "total": total,
        "work_ratio": work / forward_work,
        "megabytes": resident("VmHWM") - before,
        "how": solver,
    }


def run(method: str, tokens: int, limit: float) -> dict[str, float | str]:
    """Measure one method in a fresh process."""
    command = [sys.executable, str(HERE / "methods.py"), "--one", method, "--tokens", str(tokens)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return {"refused": f"stopped after {limit:.0f} s"}
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        return {"refused": "killed: out of memory" if done.returncode == -9 else last[0]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(results: dict[tuple[str, int], list[dict]], sizes: list[int]) -> str:
    """Write the medians as a Markdown table per size."""
    lines = []
    for tokens in sizes:
        forwards = [
            one["forward"]
            for (_, n), many in results.items()
            if n == tokens
            for one in many
            if "forward" in one
        ]
        if not forwards:
            continue
        lines += [
            f"## {tokens:,} tokens (plain forward: {statistics.median(forwards):.2f} s)",
            "",
            "| method | pixels to scores | processor time | of that: capture | seconds | memory | |",
            "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
        ]
        for (method, n), many in results.items():
            if n != tokens:
                continue
            good = [one for one in many if "total" in one]
            if not good:
                lines.append(f"| `{method}` | | | | | | {many[0]['refused']} |")
                continue
            ratio = statistics.median(one["total"] / one["forward"] for one in good)
            work = statistics.median(one["work_ratio"] for one in good)
            caught = statistics.median(one["capture"] / one["forward"] for one in good)
            seconds = statistics.median(one["total"] for one in good)
            memory = statistics.median(one["megabytes"] for one in good)
            lines.append(
                f"| `{method}` | {ratio:.2f} x | {work:.2f} x | {caught:.2f} x | {seconds:.2f} "
                f"| {memory:,.0f} MB | {good[0]['how']} |"
            )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="257,1370,5330", help="token counts")
    parser.add_argument("--methods", default="", help="names; all if empty")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit", type=float, default=600, help="seconds a process may take")
    parser.add_argument("--output", type=Path, default=HERE / "methods.md")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--tokens", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure(chosen.one, chosen.tokens)))
        return
    from attnlib import METHODS

    methods = chosen.methods.split(",") if chosen.methods else list(METHODS)
    sizes = [int(size) for size in chosen.sizes.split(",")]
    results: dict[tuple[str, int], list[dict]] = {}
    for repeat in range(chosen.repeats):
        for tokens in sizes:
            for method in methods:
                if any("refused" in one for one in results.get((method, tokens), [])):
                    continue
                found = run(method, tokens, chosen.limit)
                results.setdefault((method, tokens), []).append(found)
                print(repeat, tokens, method, found, flush=True)
        head = (
            f"# Methods: time and memory\n\nViT-S/14, random weights, {os.cpu_count()} cores; median of "
            f"{repeat + 1} fresh processes per cell, interleaved. Ratios are to a plain forward pass of the "
            "same process, in seconds and in processor time (fairer on a busy machine); memory is the "
            "highest above the loaded model that has run once. Made by "
            "`python benchmarks/methods.py`.\n\n"
        )
        chosen.output.write_text(head + table(results, sizes))


if __name__ == "__main__":
    main()
