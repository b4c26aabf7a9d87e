"""capturing: watch the attention of any model while a block of code runs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import torch
from torch import nn

from attnlib.errors import InputError, LayoutError, NeedsError
from attnlib.hooks.session import Session, is_grad_possible
from attnlib.layout.rules import find_layouts
from attnlib.record import AttentionRecord, Provenance

__all__ = ["capturing"]

_KINDS = ("self", "cross", "pool")


@contextmanager
def capturing(
    model: nn.Module,
    *,
    layers: int | Sequence[int] | None = None,
    heads: int | Sequence[int] | None = None,
    kinds: Sequence[str] = _KINDS,
    gradients: bool = False,
    max_memory: int | None = None,
) -> Iterator[AttentionRecord]:
    """Watch the attention of ``model``, as loaded, while the block runs it.

    Parameters
    ----------
    model : any module; it is given back exactly as it came, also after an exception.
    layers : layer indices (call order within a stream) to keep; None = all.
    heads : head indices to keep; None = all.
    kinds : which kinds of attention to keep: "self", "cross", "pool".
    gradients : keep the graph, so that ``record.differentiate(score)`` works; also with frozen parameters.
    max_memory : bytes that the record may hold.

    Yields
    ------
    The record, filled by the forward pass(es) inside the block.

    Raises
    ------
    CaptureError
        If an attention call was missed or does not reproduce the model's own output.
    InputError
        If a selection is empty or wrong.
    """
    module = _module(model)
    wrong = [kind for kind in kinds if kind not in _KINDS]
    if wrong or not kinds:
        raise InputError(f"kinds must be some of {', '.join(_KINDS)}, got {list(kinds)}")
    if gradients and not is_grad_possible():
        raise NeedsError("gradients=True cannot work under torch.inference_mode(): leave it for the capture")
    record = AttentionRecord(provenance=_provenance(model, module))
    session = Session(module, record, gradients=gradients)
    session.start()
    try:
        with torch.set_grad_enabled(gradients or torch.is_grad_enabled()):
            yield record
    finally:
        session.stop()
    session.finish()
    _keep(record, layers, heads, kinds)
    try:
        find_layouts(module, record, session.trail.inputs)
    except LayoutError as error:
        record.layout_problem = str(error)


def _module(model: Any) -> nn.Module:
    inner = model if isinstance(model, nn.Module) else getattr(model, "model", None)
    if not isinstance(inner, nn.Module):
        raise InputError(f"capturing needs a torch.nn.Module or a LoadedModel, got {type(model).__name__}")
    return inner


def _provenance(model: Any, module: nn.Module) -> Provenance:
    name = getattr(model, "name", None)
    config = getattr(module, "config", None)
    known = name if isinstance(name, str) else getattr(config, "name_or_path", "") or type(module).__name__
    versions = {"torch": torch.__version__}
    for package in {type(module).__module__.split(".")[0]} & {
        "transformers",
        "timm",
        "torchvision",
        "open_clip",
    }:
        versions[package] = metadata.version(package.replace("open_clip", "open-clip-torch"))
    return Provenance(str(known), "sdpa", versions)


def _keep(record: AttentionRecord, layers: Any, heads: Any, kinds: Sequence[str]) -> None:
    chosen = [layer for layer in record.layers if layer.kind in kinds]
    if not chosen:
        raise InputError(f"no attention call has kinds={list(kinds)}")
    record.layers = tuple(chosen)
    if layers is not None:
        record.layers = record.select(layers=layers).layers
    if heads is not None:
        wanted = [heads] if isinstance(heads, int) else [int(i) for i in heads]
        for layer in record.layers:
            layer._stored(wanted, None)  # refuses what is empty or outside
            layer.heads = tuple(i % layer.source.shape[1] for i in wanted)
            layer.total_heads = layer.source.shape[1]
            layer.source = layer.source.only_heads(list(layer.heads))  # type: ignore[attr-defined]
