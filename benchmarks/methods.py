"""Time and memory of every method: ``python benchmarks/methods.py``.

The model is a ViT-S/14 (12 layers, 6 heads, 384 wide) with random weights: time and memory do not depend
on the weights. A fresh process measures the methods that need the same capture (attention only, with
gradients, with internals, with both) at one size: some plain forward passes, the capture, then each method
on it. Processes take turns over sizes, kinds and repeats, and the order of methods turns with each repeat,
so that a busy minute hits all of them. ``--apart`` gives each method a process of its own (slower).

Parts can be run on their own (``--sizes 257``, ``--methods rollout,flow``): results are kept in
methods.json beside this file, and methods.md is written from all of them. ``--new`` forgets the old ones.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SIDES = {257: 16, 1370: 37, 5330: 73}
REPEATS = {257: 3, 1370: 3, 5330: 1}
SLOW = 20.0  # seconds; a method that takes longer is measured once
OPTIONS = {("integrated_gradients", 5330): {"steps": 2}}
KINDS = {
    (False, False): "attention",
    (True, False): "gradients",
    (False, True): "internals",
    (True, True): "internals and gradients",
}


def resident(field: str) -> float:
    """Read VmRSS or VmHWM of this process, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1000
    raise RuntimeError(f"no {field} in /proc/self/status: this benchmark needs Linux")


def forget_highest() -> None:
    """Give freed memory back, and forget the highest so far."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def kind_of(method: str) -> tuple[bool, bool]:
    """Return whether a method needs a target, and internals."""
    from attnlib import METHODS

    card = METHODS[method]
    return card.explains_target, card.needs_internals


def timed(work: Any) -> tuple[float, float, Any]:
    """Return seconds, processor seconds and the result."""
    start, worked = time.perf_counter(), time.process_time()
    made = work()
    return time.perf_counter() - start, time.process_time() - worked, made


def measure(methods: list[str], tokens: int) -> None:
    """Measure methods of one kind in this process; print one line of JSON each."""
    import torch
    from transformers import Dinov2Config, Dinov2ForImageClassification

    from attnlib import capture, explain
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
    inputs = {"pixel_values": torch.rand(1, 3, side, side)}

    def plain() -> None:
        with torch.no_grad():
            model(**inputs)

    plain()
    tried = [timed(plain)[:2] for _ in range(3 if tokens < 5000 else 2)]
    forward, forward_work = (min(column) for column in zip(*tried, strict=True))
    target, internals = kind_of(methods[0])
    forget_highest()
    before = resident("VmRSS")
    captured, capture_work, record = timed(
        lambda: capture(model, inputs, target=3 if target else None, internals=internals)
    )
    capture_peak = resident("VmHWM") - before
    for method in methods:
        options: dict[str, Any] = dict(OPTIONS.get((method, tokens), {}))
        how = ", ".join(f"{name}={value}" for name, value in options.items())
        if method == "edges":
            options["picture"] = inputs["pixel_values"]
        forget_highest()
        try:
            seconds, work, found = timed(lambda m=method, o=options: explain(record, m, **o))
        except (AttnlibError, ImportError) as error:
            print(json.dumps({"method": method, "refused": str(error)}), flush=True)
            continue
        row = {
            "method": method,
            "forward": forward,
            "capture": captured,
            "total": captured + seconds,
            "work_ratio": (capture_work + work) / forward_work,
            "megabytes": max(capture_peak, resident("VmHWM") - before),
            "how": how or str(found.options.get("solver", "")),
        }
        print(json.dumps(row), flush=True)


def run(methods: list[str], tokens: int, limit: float) -> list[dict[str, Any]]:
    """Measure methods of one kind in a fresh process."""
    command = [sys.executable, str(HERE / "methods.py"), "--worker", "--methods", ",".join(methods)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    try:
        done = subprocess.run(
            [*command, "--sizes", str(tokens)],
            capture_output=True,
            text=True,
            timeout=limit,
            env=environment,
            check=False,
        )
        said = done.stdout
        last = "killed: out of memory" if done.returncode == -9 else (done.stderr.strip() or "no message")
        why = last.splitlines()[-1]
    except subprocess.TimeoutExpired as late:
        said = late.stdout.decode() if isinstance(late.stdout, bytes) else (late.stdout or "")
        why = f"stopped after {limit:.0f} s"
    rows = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    seen = {row["method"] for row in rows}
    return rows + [{"method": name, "refused": why} for name in methods if name not in seen]


def table(results: list[dict[str, Any]], tokens: int, order: list[str]) -> str:
    """Write the medians of one size as a Markdown table."""
    own = [row for row in results if row["tokens"] == tokens]
    forwards = [row["forward"] for row in own if "forward" in row]
    if not forwards:
        return ""
    lines = [
        f"## {tokens:,} tokens (plain forward: {statistics.median(forwards):.2f} s)",
        "",
        "| method | capture | pixels to scores | processor | capture alone | seconds | memory | runs | |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for method in order:
        rows = [row for row in own if row["method"] == method]
        good = [row for row in rows if "total" in row]
        needs = KINDS[kind_of(method)]
        if not good:
            why = rows[0]["refused"].replace("|", "\\|") if rows else "not measured"
            lines.append(f"| `{method}` | {needs} | | | | | | | {why} |")
            continue
        ratio, work, caught, seconds, memory = (
            statistics.median(values)
            for values in zip(
                *(
                    (
                        row["total"] / row["forward"],
                        row["work_ratio"],
                        row["capture"] / row["forward"],
                        row["total"],
                        row["megabytes"],
                    )
                    for row in good
                ),
                strict=True,
            )
        )
        lines.append(
            f"| `{method}` | {needs} | {ratio:.2f} x | {work:.2f} x | {caught:.2f} x | {seconds:.2f} "
            f"| {memory:,.0f} MB | {len(good)} | {good[0]['how']} |"
        )
    return "\n".join([*lines, "", ""])


def write(results: list[dict[str, Any]], output: Path, order: list[str]) -> None:
    """Write the table of all sizes."""
    head = (
        f"# Methods: time and memory\n\nViT-S/14, random weights, {os.cpu_count()} cores. Medians over fresh "
        "processes; methods that need the same capture share one, and each is counted with the whole "
        "capture. Ratios are to a plain forward pass of the same process, in seconds and in processor time "
        "(fairer on a busy machine). A capture is the first of its process; with gradients it holds a "
        "forward and a backward pass. Memory is the highest above the loaded model that has run once. What "
        f"takes more than {SLOW:.0f} s is measured once. Made by `python benchmarks/methods.py`.\n\n"
    )
    output.write_text(head + "".join(table(results, tokens, order) for tokens in SIDES).rstrip() + "\n")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="257,1370,5330", help="token counts")
    parser.add_argument("--methods", default="", help="names; all if empty")
    parser.add_argument("--repeats", type=int, default=None, help=f"default by size: {REPEATS}")
    parser.add_argument("--limit", type=float, default=420, help="seconds a process may take")
    parser.add_argument("--apart", action="store_true", help="a process for each method")
    parser.add_argument("--new", action="store_true", help="forget earlier results")
    parser.add_argument("--output", type=Path, default=HERE / "methods.md")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    from attnlib import METHODS

    methods = chosen.methods.split(",") if chosen.methods else list(METHODS)
    sizes = [int(size) for size in chosen.sizes.split(",")]
    if chosen.worker:
        measure(methods, sizes[0])
        return
    kept = chosen.output.with_suffix(".json")
    results = json.loads(kept.read_text()) if kept.exists() and not chosen.new else []
    results = [row for row in results if row["method"] not in methods or row["tokens"] not in sizes]
    rounds = {size: chosen.repeats or REPEATS[size] for size in sizes}
    for repeat in range(max(rounds.values())):
        for tokens in [size for size in sizes if repeat < rounds[size]]:
            done = [row for row in results if row["tokens"] == tokens]
            slow = {row["method"] for row in done if row.get("total", SLOW + 1) > SLOW}
            left = [name for name in methods if name not in slow]
            groups: dict[Any, list[str]] = {}
            for name in left:
                groups.setdefault((kind_of(name), name if chosen.apart else ""), []).append(name)
            for names in groups.values():
                turned = names[repeat % len(names) :] + names[: repeat % len(names)]
                for row in run(turned, tokens, chosen.limit):
                    results.append({"tokens": tokens, **row})
                    print(repeat, tokens, row, flush=True)
                kept.write_text(json.dumps(results, indent=0) + "\n")
                write(results, chosen.output, list(METHODS))


if __name__ == "__main__":
    main()
