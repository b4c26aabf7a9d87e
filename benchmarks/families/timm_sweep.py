# ruff: noqa: E501
"""Capture one small model per file of timm that has attention, as loaded (fused attention on); write the table.

``python benchmarks/families/timm_sweep.py`` runs all (some ten minutes on two cores); ``--only NAME ...`` runs
some model names or files; ``--table`` writes ``timm.md`` from the results. Weights are random. The same weights are
loaded into a model built with fused attention off, and what goes into its attention dropout (the weights
that are multiplied with the values) is compared with what was captured.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import multiprocessing
import os
import re
import time
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "timm.json"
TIMEOUT = int(os.environ.get("TIMM_SECONDS", "170"))
SMALL = (
    "test_",
    "atto",
    "femto",
    "pico",
    "nano",
    "xxs",
    "xxt",
    "_xs",
    "tiny",
    "_t_",
    "b0",
    "_m0",
    "_s0",
    "_p0",
    "d1",
    "mini",
)
MORE = (
    "beitv2_base_patch16_224", "botnet26t_256", "cait_xxs24_224", "coat_lite_tiny", "coatnet_nano_rw_224",
    "crossvit_tiny_240", "deit_tiny_distilled_patch16_224", "deit3_small_patch16_224", "eva02_tiny_patch14_224",
    "halonet26t", "lambda_resnet26t", "levit_conv_128s", "maxvit_rmlp_pico_rw_256", "maxxvit_rmlp_nano_rw_256",
    "mobilevitv2_050", "mvitv2_small_cls", "twins_pcpvt_small", "twins_svt_small", "vit_base_patch16_siglip_224",
    "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3", "vit_base_patch16_clip_224", "vit_relpos_small_patch16_224",
    "vit_srelpos_small_patch16_224", "vit_medium_patch16_gap_256", "xcit_nano_12_p16_224", "resnet50_clip",
    "naflexvit_base_patch16_map", "vit_little_patch16_reg4_gap_256", "vit_tiny_patch16_224", "flexivit_small",
    "hiera_tiny_224", "hiera_base_abswin_256", "swin_s3_tiny_224", "swinv2_cr_tiny_ns_224", "vit_pwee_patch16_reg1_gap_256",
    "mobilenetv4_hybrid_medium", "mobilenetv5_300m", "repvit_m1", "fastvit_sa12", "fastvit_mci0", "caformer_s18",
    "poolformer_s12", "vitamin_small_224", "nfnet_l0", "mambaout_femto", "rdnet_tiny", "sequencer2d_s", "mixer_s32_224",
)  # fmt: skip


def small_models() -> list[str]:
    """Return one small model for each file of timm whose code mentions attention, and some variants."""
    from timm.models._registry import _module_to_models

    names = list(MORE)
    for module, models in sorted(_module_to_models.items()):
        source = inspect.getsource(importlib.import_module(f"timm.models.{module}"))
        if not re.search(r"scaled_dot_product_attention|softmax|\w*Attention\b", source):
            continue
        by_size = sorted(
            models,
            key=lambda name: (next((i for i, w in enumerate(SMALL) if w in name), 99), len(name), name),
        )
        names.append(by_size[0])
    known = {name for models in _module_to_models.values() for name in models}
    return [name for name in dict.fromkeys(names) if name in known]


def try_model(name: str) -> dict[str, Any]:
    """Build one model, capture it, and compare with its unfused twin."""
    warnings.filterwarnings("ignore")
    import timm
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        model = timm.create_model(name, pretrained=False).eval()
        size = model.pretrained_cfg.get("input_size", (3, 224, 224))
        if model.pretrained_cfg.get("fixed_input_size", True) is False and size[-1] > 256:
            size = (3, 256, 256)
        if max(size) > 384 and not name.startswith("samvit"):
            model = timm.create_model(name, pretrained=False, img_size=14 * 18).eval()
            size = (3, 14 * 18, 14 * 18)
        pixels = torch.rand(2 if max(size) < 300 else 1, *size)
        with torch.no_grad():
            plain = model(pixels)
    except Exception as error:
        return {"model": name, "result": "not built", "text": f"{type(error).__name__}: {error}"[:200]}
    found = look(model, pixels, plain, name)
    if found.get("unmatched"):  # is it rounding? then twice as many digits leave nothing of it
        model, pixels = model.double(), pixels.double()
        with torch.no_grad():
            again = look(model, pixels, model(pixels), name)
        found["float64"] = None if again.get("unmatched", 1) else again["worst"]
    return {"model": name, "file": type(model).__module__.rsplit(".", 1)[-1], **found}


def look(model: Any, pixels: Any, plain: Any, name: str) -> dict[str, Any]:
    """Capture one model and judge the weights."""
    import torch

    from attnlib import capture
    from attnlib.errors import AttnlibError

    truth = unfused(name, model, pixels)
    try:
        record = capture(model, pixels)
    except AttnlibError as error:
        return {"result": "refused", "text": str(error)[:400], "truth": len(truth)}
    except Exception as error:
        return {"result": "failed", "text": f"{type(error).__name__}: {error}"[:400], "truth": len(truth)}
    answers = plain if isinstance(plain, tuple) else (plain,)
    again = record.output if isinstance(record.output, tuple) else (record.output,)
    same = all(torch.equal(a, b) for a, b in zip(answers, again, strict=True) if isinstance(a, torch.Tensor))
    found = {
        "result": "captured",
        "calls": len(record.layers),
        "seen": ", ".join(dict.fromkeys(f"{one.stream} {one.kind}" for one in record.layers)),
        "source": record.provenance.source,
        "layout": "; ".join(f"{k}: {v}" for k, v in record.layouts.items())
        or f"none: {record.layout_problem}",
        "unplaced": sum(one.unplaced is not None for one in record.layers),
        "windows": sum(one.source.kind_of_source == "windows" for one in record.layers),
        "notes": list(record.provenance.notes)[:2],
        "gaps": len(getattr(record, "gaps", ())),
        "truth": len(truth),
        "same output": same,
    }
    unused, worst, unmatched = list(record.layers), 0.0, 0
    for one in truth:
        gaps = [(_gap(layer, one), place) for place, layer in enumerate(unused)]
        best = min(gaps, default=(9.0, -1))
        if best[0] < 1e-3:
            worst = max(worst, best[0])
            del unused[best[1]]
        else:
            unmatched += 1
    return {**found, "worst": worst, "unmatched": unmatched}


def _gap(layer: Any, one: Any) -> float:
    """Return how far captured weights are from the unfused ones, if they can be the same call."""
    mine = layer.window_weights()
    if one.dim() == 5:  # [batch, head, window, ...] or [batch, window, head, ...]
        either = (one.transpose(1, 2).flatten(0, 1), one.flatten(0, 1))
        return min(
            [float((mine - two).abs().max()) for two in either if two.shape == mine.shape], default=9.0
        )
    if mine.shape != one.shape:
        if mine.numel() != one.numel() or mine.shape[-2:] != one.shape[-2:]:
            return 9.0
        # windows before or behind the heads: compare sorted by matrix
        left, right = mine.reshape(-1, *mine.shape[-2:]), one.reshape(-1, *one.shape[-2:])
        key = slice(0, 1)
        order = [t[:, key].flatten(1).double().sum(1).argsort() for t in (left, right)]
        if (left - right).abs().max() > 1e-3:
            left, right = left[order[0]], right[order[1]]
        return float((left - right).abs().max())
    return float((mine - one).abs().max())


def unfused(name: str, model: Any, pixels: Any) -> list[Any]:
    """Return the weights that a model without fused attention multiplies with the values."""
    import timm
    import torch

    timm.layers.set_fused_attn(False)
    try:
        shrunken = {"img_size": tuple(pixels.shape[-2:])} if pixels.shape[-1] == 14 * 18 else {}
        twin = timm.create_model(name, pretrained=False, **shrunken).eval()
    finally:
        timm.layers.set_fused_attn(True)
    twin.load_state_dict(model.state_dict())
    twin.to(pixels.dtype)
    found: list[Any] = []

    def note(_: Any, given: Any) -> None:
        one = given[0]
        if one.dim() >= 3 and one.shape[-1] > 1:
            found.append(one.detach())

    handles = [
        inner.register_forward_pre_hook(note)
        for path, inner in twin.named_modules()
        if path.rsplit(".", 1)[-1] in ("attn_drop", "attn_dropout", "dropatt")
    ]
    if not handles:
        return []
    with torch.no_grad():
        twin(pixels)
    return found


def _child(name: str, queue: Any) -> None:
    started = time.perf_counter()
    try:
        result = try_model(name)
    except BaseException as error:
        result = {"model": name, "result": "failed", "text": f"{type(error).__name__}: {error}"[:300]}
    queue.put({**result, "seconds": round(time.perf_counter() - started, 1)})


def run(names: list[str], results: dict[str, dict[str, Any]]) -> None:
    """Run each model in a process of its own."""
    context = multiprocessing.get_context("fork")
    for name in names:
        queue = context.Queue()
        process = context.Process(target=_child, args=(name, queue))
        process.start()
        try:
            results[name] = queue.get(timeout=TIMEOUT)
        except Exception:
            process.kill()
            results[name] = {"model": name, "result": "not built", "text": f"more than {TIMEOUT} s"}
        process.join()
        print(json.dumps(results[name])[:330], flush=True)
        RESULTS.write_text(
            json.dumps(sorted(results.values(), key=lambda one: one["model"]), indent=1) + "\n"
        )


def verdict(one: dict[str, Any]) -> str:
    """Say in one word how it went."""
    if one["result"] != "captured":
        return str(one["result"])
    equal = not one["unmatched"] or (one.get("float64") or 1.0) < 1e-9
    return "exact" if equal and one["same output"] else "differs"


def table(results: list[dict[str, Any]]) -> str:
    """Return the page."""
    import timm
    import torch

    verdicts = [verdict(one) for one in results]
    counts = ", ".join(f"{verdicts.count(word)} {word}" for word in dict.fromkeys(verdicts))
    rows = []
    for one in results:
        if one["result"] == "captured":
            seen = f"{one['calls']} ({one['seen']})"
            agreement = (
                f"{one['worst']:.1e} ({one['truth']} calls)" if one["truth"] else "its own output only"
            )
            if one["unmatched"]:
                agreement += f"; {one['unmatched']} without an equal in float32"
                if one.get("float64") is not None:
                    agreement += f", in float64 all within {one['float64']:.1e}"
            text = (
                one["layout"]
                if not one["unplaced"]
                else f"{one['unplaced']} calls as raw windows only; {one['layout']}"
            )
            if one.get("gaps"):
                text += f"; {one['gaps']} gaps named"
        else:
            seen, agreement, text = "", "", one["text"]
        rows.append(
            f"| {one['model']} | {verdict(one)} | {seen} | {one.get('source', '')} | {agreement} | {text[:170].replace('|', '/')} |"
        )
    head = (
        (HERE / "timm_head.md")
        .read_text()
        .format(
            timm=timm.__version__,
            torch=str(torch.__version__).split("+")[0],
            count=len(results),
            counts=counts,
        )
    )
    return head + "\n".join(rows) + "\n"


def main() -> None:
    """Run the models and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    known = {one["model"]: one for one in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    if not options.table:
        names = small_models()
        if options.only:
            names = [name for name in names if any(word in name for word in options.only)] or options.only
        run(names, known)
    (HERE / "timm.md").write_text(table(sorted(known.values(), key=lambda one: one["model"])))


if __name__ == "__main__":
    main()
