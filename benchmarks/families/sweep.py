"""Capture every family of the installed transformers, built small with random weights; write the table.

Run ``python benchmarks/families/sweep.py`` (about half an hour on two cores); ``--only NAME ...`` for some.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import multiprocessing
import os
import time
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TIMEOUT = 90


def try_family(name: str) -> dict[str, Any]:
    """Build a family, capture it, and compare with what the library itself returns in eager mode."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    import sys

    sys.path.insert(0, str(HERE))
    import torch

    torch.set_num_threads(1)
    from shrink import build, inputs_for, shrunken
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    problem = "no config"
    for level in (0, 1, 2):
        try:
            config = shrunken(CONFIG_MAPPING[name](), level)
            model = build(config)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            continue
        for inputs in inputs_for(model, config):
            try:
                torch.manual_seed(0)
                with torch.no_grad():
                    model(**inputs)
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            return {"family": name, "level": level, **look(model, inputs)}
    return {"family": name, "result": "not built", "text": problem[:300]}


def look(model: Any, inputs: Any) -> dict[str, Any]:
    """Capture one model and judge the weights."""
    import torch

    from attnlib import capture
    from attnlib.errors import AttnlibError

    torch.manual_seed(0)
    try:
        record = capture(model, inputs)
    except AttnlibError as error:
        return {"result": "refused", "text": str(error)[:400], "has_eager": bool(eager(model, inputs))}
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
        "unplaced": sum(layer.unplaced is not None for layer in record.layers),
    }
    theirs = eager(model, inputs)
    found["eager_layers"] = len(theirs)
    unused = list(record.layers)
    worst, unmatched = 0.0, 0
    for one in theirs:
        best = None
        for layer in unused:
            raw = layer.window_weights()
            for mine in (raw, raw.flatten(0, 1)) if raw.shape != one.shape else (raw,):
                if mine.shape == one.shape:
                    gap = (mine.double() - one.double()).abs().nan_to_num(9).max().item()
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


def eager(model: Any, inputs: Any) -> list[Any]:
    """Return the attention tensors that the library returns when it computes them itself."""
    import torch

    with contextlib.suppress(Exception):  # some models have one implementation only
        model.set_attn_implementation("eager")
    found: list[Any] = []
    try:
        torch.manual_seed(0)
        with torch.no_grad():
            output = model(**inputs, output_attentions=True, return_dict=True)
    except Exception:
        return []

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
    return found


def _child(name: str, queue: Any) -> None:
    started = time.perf_counter()
    try:
        result = try_family(name)
    except BaseException as error:
        result = {"family": name, "result": "failed", "text": f"{type(error).__name__}: {error}"[:300]}
    result["seconds"] = round(time.perf_counter() - started, 1)
    queue.put(result)


def run(names: list[str], out: Path, jobs: int) -> list[dict[str, Any]]:
    """Run each family in a process of its own; results are written as they come."""
    context = multiprocessing.get_context("fork")
    results: list[dict[str, Any]] = []
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
        "| family | result | calls | seen as | largest difference to the library's own |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in sorted(results, key=lambda entry: entry["family"]):
        if one["result"] == "captured":
            compared = one["eager_layers"] - one["unmatched"]
            gap = f"{one['worst']:.1e} ({compared} calls)" if compared else "its own output only"
            streams = f"{one['layers']} ({one['streams']})"
            rows.append(f"| {one['family']} | {judge(one)} | {streams} | {one['source']} | {gap} |")
        else:
            text = " ".join(one.get("text", "").split()).replace("|", "/")[:140]
            rows.append(f"| {one['family']} | {judge(one)} |  |  | {text} |")
    return "\n".join(rows)


def judge(one: dict[str, Any]) -> str:
    """Return the verdict on one family in a word."""
    if one["result"] != "captured":
        return str(one["result"])
    return "exact" if one["worst"] < 1e-4 else "differs"


def write_readme(results: list[dict[str, Any]]) -> None:
    """Write the table, and how many families have which verdict, into the README beside this file."""
    counts: dict[str, int] = {}
    for one in results:
        counts[judge(one)] = counts.get(judge(one), 0) + 1
    words = ", ".join(f"{count} {word}" for word, count in sorted(counts.items(), key=lambda pair: -pair[1]))
    head = (HERE / "head.md").read_text()
    (HERE / "README.md").write_text(f"{head}\n{len(results)} families tried: {words}.\n\n{table(results)}\n")


def main() -> None:
    """Run the sweep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="write README.md from the results and stop")
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
    run(names, options.out, options.jobs)


if __name__ == "__main__":
    main()
