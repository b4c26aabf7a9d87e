"""capturing: watch the attention of any model while a block of code runs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import torch
from torch import nn

from attnlib.errors import InputError, NeedsError
from attnlib.hooks.budget import Budget
from attnlib.hooks.builder import RecordBuilder
from attnlib.hooks.missed import check_nothing_missed
from attnlib.hooks.session import Session
from attnlib.record import AttentionRecord, Provenance

__all__ = ["capturing"]

_KINDS = ("self", "cross", "pool")


@contextmanager
def capturing(
    model: nn.Module | Any,
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
    if gradients and torch.is_inference_mode_enabled():
        raise NeedsError("gradients=True cannot work under torch.inference_mode(): leave it for the capture")
    record = AttentionRecord(provenance=_provenance(model, module))
    builder = RecordBuilder(module, record, layers=layers, kinds=kinds)
    session = Session(
        module,
        gradients=gradients,
        heads=_selection(heads, "heads"),
        budget=Budget(max_memory, gradients=gradients),
        on_forward=builder.add,
    )
    if session.keeper is not None:
        record.on_differentiate = session.keeper.differentiate
    with _eager_stance():
        session.start()
        try:
            with torch.set_grad_enabled(gradients or torch.is_grad_enabled()):
                yield record
        finally:
            session.stop()
    builder.finish(check_nothing_missed(session, record.layers))


@contextmanager
def _eager_stance() -> Iterator[None]:
    """Let compiled modules run their original code, so that it can be seen."""
    with torch.compiler.set_stance("force_eager"):
        yield


def _selection(wanted: int | Sequence[int] | None, what: str) -> list[int] | None:
    if wanted is None:
        return None
    chosen = [wanted] if isinstance(wanted, int) else [int(i) for i in wanted]
    if not chosen:
        raise InputError(f"empty selection of {what}: None means all")
    return chosen


def _module(model: Any) -> nn.Module:
    inner = model if isinstance(model, nn.Module) else getattr(model, "model", None)
    if not isinstance(inner, nn.Module):
        raise InputError(f"capturing needs a torch.nn.Module or a LoadedModel, got {type(model).__name__}")
    for name, one in inner.named_modules():
        if isinstance(one, torch.jit.ScriptModule):
            raise InputError(
                f"{name or 'the model'} is scripted or traced (torch.jit): its code runs outside Python and "
                "cannot be watched. Capture the module it was made from"
            )
    return inner


def _provenance(model: Any, module: nn.Module) -> Provenance:
    name = getattr(model, "name", None)
    config = getattr(module, "config", None)
    known = name if isinstance(name, str) else getattr(config, "name_or_path", "") or type(module).__name__
    versions = {"torch": str(torch.__version__)}
    for package in {type(module).__module__.split(".")[0]} & {
        "transformers",
        "timm",
        "torchvision",
        "open_clip",
    }:
        versions[package] = metadata.version(package.replace("open_clip", "open-clip-torch"))
    return Provenance(str(known), "sdpa", versions)
