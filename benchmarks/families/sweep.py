"""Capture every family of the installed transformers, built small with random weights; write the table.

Run ``python benchmarks/families/sweep.py`` (``--jobs 2`` with OMP_NUM_THREADS=1: ten minutes on two idle
cores); ``--only NAME ...`` for some.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import multiprocessing
import os
import subprocess
import time
import warnings
from itertools import chain, permutations
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TIMEOUT = int(os.environ.get("FAMILY_SECONDS", "100"))
COMMIT = (
    os.environ.get("FAMILY_COMMIT")
    or subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False
    ).stdout.strip()
)
WAYS = int(os.environ.get("FAMILY_PLANS", "9"))  # of making a config small, tried one after the other


def try_family(name: str) -> dict[str, Any]:
    """Build a family, capture it, and compare with what the library itself returns in eager mode."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    import sys

    sys.path.insert(0, str(HERE))
    import torch

    torch.set_num_threads(1)
    from by_hand import MADE
    from fitting import inputs_for
    from particular import adjust, made_with, own_inputs
    from shrink import PLANS, build, shrunken
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    made = MADE.get(name)
    if made is not None:
        try:
            model, inputs = made()
            with torch.no_grad():
                model(**inputs)
        except Exception as error:
            return {"family": name, "result": "not built", "text": f"{type(error).__name__}: {error}"[:250]}
        return {"family": name, "level": "by hand", **look(model, inputs)}
    problems: dict[str, None] = {}
    tried: set[str] = set()
    for level, plan in enumerate(PLANS[:WAYS]):
        try:
            config = adjust(name, shrunken(CONFIG_MAPPING[name](**made_with(name)), plan))
            if repr(config) in tried:
                continue
            tried.add(repr(config))
            model = build(config)
        except Exception as error:
            problems[f"{level}: {type(error).__name__}: {error}"[:250]] = None
            continue
        for inputs in chain(own_inputs(name, config), inputs_for(model, config)):
            try:
                torch.manual_seed(0)
                with torch.no_grad():
                    model(**inputs)
            except Exception as error:
                problems[f"{level} forward: {type(error).__name__}: {error}"[:200]] = None
                continue
            return {"family": name, "level": level, **look(model, inputs)}
    return {"family": name, "result": "not built", "text": "\n".join(problems) or "no config"}


def look(model: Any, inputs: Any) -> dict[str, Any]:
    """Capture one model and judge the weights."""
    import torch

    from attnlib import capture
    from attnlib.errors import AttnlibError

    torch.manual_seed(0)
    try:
        record = capture(model, inputs)
    except AttnlibError as error:
        return {"result": "refused", "text": str(error)[:400], "has_eager": bool(eager(model, inputs)[0])}
    except Exception as error:
        return {"result": "failed", "text": f"{type(error).__name__}: {error}"[:400]}
    kinds = dict.fromkeys(f"{layer.stream} {layer.kind}" for layer in record.layers)
    found = {
        "result": "captured",
        "layers": len(record.layers),
        "streams": ", ".join(kinds),
        "source": record.provenance.source,
        "layout": "; ".join(f"{k}: {v}" for k, v in record.layouts.items())[:200],
        "notes": list(record.provenance.notes)[:3],
        "gaps": [str(one) for one in record.gaps],
        "unplaced": sum(layer.unplaced is not None for layer in record.layers),
    }
    theirs, same = eager(model, inputs)
    found["eager_layers"] = len(theirs)
    found["same_output"] = same
    unused = list(record.layers)
    worst, unmatched = 0.0, 0
    for one in theirs:
        best = None
        for layer in unused:
            mine = as_computed(layer).double()
            if mine.numel() != one.numel() or mine.shape[-2:] != one.shape[-2:]:
                continue
            gap = 9.0
            orders = permutations(range(one.dim() - 2)) if one.dim() > 4 else [range(one.dim() - 2)]
            for order in orders:  # of windows, heads and items
                given = one.double().permute(*order, -2, -1).reshape(mine.shape)
                tries = [given, given.softmax(-1)]  # some families return the scores before the softmax
                gaps = [(mine - other).abs().nan_to_num(9).max().item() for other in tries]
                if bool((given == given[:, :1]).all()):  # the mean of the heads, given for each of them
                    gaps.append((mine.mean(1, keepdim=True) - given).abs().max().item())
                gap = min(gap, *gaps)
            if best is None or gap < best[0]:
                best = (gap, layer)
        if best is None:
            unmatched += 1
        else:
            worst = max(worst, best[0])
            unused.remove(best[1])
    found["worst"] = worst
    found["unmatched"] = unmatched
    return found


def as_computed(layer: Any) -> Any:
    """Return the weights as the model computes them: in windows, unless these are of several sizes."""
    from attnlib.errors import InputError

    try:
        return layer.window_weights()
    except InputError:
        return layer.weights()


def eager(model: Any, inputs: Any) -> tuple[list[Any], bool]:
    """Return the attention tensors that the library returns when it computes them itself.

    Also whether the model said the same then as it does without being asked for them: if not, its attention
    tensors belong to another computation than its plain forward pass.
    """
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        plain = model(**inputs)
    with contextlib.suppress(Exception):  # some models have one implementation only
        model.set_attn_implementation("eager")
    found: list[Any] = []
    try:
        torch.manual_seed(0)
        with torch.no_grad():
            output = model(**inputs, output_attentions=True, return_dict=True)
    except Exception:
        return [], True

    def gather(name: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            if "attention" in name and value.dim() >= 4:
                found.append(value)
        elif isinstance(value, tuple | list):
            for one in value:
                gather(name, one)
        elif hasattr(value, "items"):
            for key, one in value.items():
                gather(str(key), one)

    gather("", output)
    return found, _same(plain, output)


def _same(plain: Any, output: Any) -> bool:
    """Compare the states and answers of two forward passes of one model."""
    import torch

    for word, a in plain.items() if hasattr(plain, "items") else ():
        b = output.get(word) if hasattr(output, "get") else None
        if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor) or a.shape != b.shape:
            continue
        near = (a.double() - b.double()).abs().max() <= 1e-3 * max(1.0, float(a.abs().max()))
        if a.is_floating_point() and not bool(near):
            return False
    return True


def _child(name: str, queue: Any) -> None:
    started = time.perf_counter()
    try:
        result = try_family(name)
    except BaseException as error:
        result = {"family": name, "result": "failed", "text": f"{type(error).__name__}: {error}"[:300]}
    result["seconds"] = round(time.perf_counter() - started, 1)
    result["commit"] = COMMIT
    queue.put(result)


def run(names: list[str], out: Path, jobs: int) -> list[dict[str, Any]]:
    """Run each family in a process of its own; results are written as they come."""
    context = multiprocessing.get_context("fork")
    results: list[dict[str, Any]] = [one for one in _earlier(out) if one["family"] not in names]
    waiting, running = list(names), []
    while waiting or running:
        while waiting and len(running) < jobs:
            queue = context.Queue()
            process = context.Process(target=_child, args=(waiting[0], queue))
            process.start()
            running.append((waiting.pop(0), process, queue, time.time()))
        time.sleep(0.05)
        for entry in list(running):
            name, process, queue, started = entry
            if not queue.empty():
                results.append(queue.get())
                process.join()
            elif not process.is_alive():
                time.sleep(0.2)
                if queue.empty():
                    results.append({"family": name, "result": "not built", "text": "the process died"})
                else:
                    continue
            elif time.time() - started > TIMEOUT:
                process.kill()
                results.append({"family": name, "result": "not built", "text": f"more than {TIMEOUT} s"})
            else:
                continue
            running.remove(entry)
            print(json.dumps(results[-1])[:230], flush=True)
            out.write_text(json.dumps(sorted(results, key=lambda one: one["family"]), indent=1))
    return results


def _earlier(out: Path) -> list[dict[str, Any]]:
    return json.loads(out.read_text()) if out.exists() else []


def families(mapping: Any) -> list[str]:
    """Return one config per model folder of the library: the one named like it, or the first."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    folders: dict[str, list[str]] = {}
    for name in mapping:
        config = mapping[name]
        folders.setdefault(config.__module__.split(".")[2], []).append(name)
    chosen = []
    for folder, names in sorted(folders.items()):
        whole = [one for one in names if one.replace("-", "_") == folder]
        usable = [one for one in names if mapping[one] in MODEL_MAPPING]
        chosen.append((whole or usable or names)[0])
    return chosen


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as a table in Markdown."""
    rows = [
        "| family | result | calls | seen as | gaps | largest difference to the library's own |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for one in sorted(results, key=lambda entry: entry["family"]):
        if one["result"] == "captured":
            compared = one["eager_layers"] - one["unmatched"]
            gap = f"{one['worst']:.1e} ({compared} calls)" if compared else "its own output only"
            streams = f"{one['layers']} ({one['streams']})"
            gaps = len(one["gaps"]) or ""
            raw = f"; {one['unplaced']} as raw windows only" if one["unplaced"] else ""
            seen = f"{one['source']}{raw}"
            rows.append(f"| {one['family']} | {judge(one)} | {streams} | {seen} | {gaps} | {gap} |")
        else:
            text = " ".join(one.get("text", "").split()).replace("|", "/")[:140]
            rows.append(f"| {one['family']} | {judge(one)} |  |  |  | {text} |")
    return "\n".join(rows)


def judge(one: dict[str, Any]) -> str:
    """Return the verdict on one family in a word."""
    if one["result"] != "captured":
        return str(one["result"])
    if one["worst"] < 1e-5 or (one["worst"] < 1e-4 and one["same_output"]):
        return "exact"
    return "differs" if one.get("same_output", True) else "other run"


def write_readme(results: list[dict[str, Any]]) -> None:
    """Write the table, and how many families have which verdict, into the README beside this file."""
    counts: dict[str, int] = {}
    for one in results:
        counts[judge(one)] = counts.get(judge(one), 0) + 1
    words = ", ".join(f"{count} {word}" for word, count in sorted(counts.items(), key=lambda pair: -pair[1]))
    with_weights = [one for one in results if one["result"] == "captured" or one.get("has_eager")]
    without = [one for one in results if one["result"] == "refused" and not one.get("has_eager")]
    verdicts = [judge(one) for one in with_weights]
    sums = (
        f"{len(with_weights)} families that could be built have attention weights: "
        f"{verdicts.count('exact')} exact, {verdicts.count('other run')} other run, "
        f"{verdicts.count('refused')} refused by name, {verdicts.count('differs')} wrong. "
        f"{len(without)} have none (convolutions, state spaces, approximations): all refused by name."
    )
    head = (HERE / "head.md").read_text()
    made = {one.get("commit", ""): 0 for one in results}
    for one in results:
        made[one.get("commit", "")] += 1
    rows = ", ".join(f"{count} by {name or 'earlier commits'}" for name, count in made.items())
    tried = f"{len(results)} families tried: {words}. Rows by commit: {rows}."
    text = f"{head}\n{sums}\n\n{tried}\n\n{table(results)}\n"
    (HERE / "README.md").write_text(text)


def main() -> None:
    """Run the sweep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="write README.md from the results and stop")
    parser.add_argument("--resume", action="store_true", help="only families that have no result yet")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    options = parser.parse_args()
    if options.table:
        write_readme(json.loads(options.out.read_text()))
        return
    import torch  # noqa: F401  imported once, before the processes fork
    import transformers.generation
    import transformers.image_utils
    import transformers.modeling_utils
    import transformers.models.auto.modeling_auto  # noqa: F401
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM  # noqa: F401
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    import attnlib
    from attnlib import AttentionRecord, capture  # noqa: F401

    print(attnlib.__file__)
    names = options.only or families(CONFIG_MAPPING)
    if options.resume:
        done = {one["family"] for one in _earlier(options.out)}
        names = [one for one in names if one not in done]
    elif not options.only:
        options.out.unlink(missing_ok=True)
    run(names, options.out, options.jobs)


if __name__ == "__main__":
    main()
