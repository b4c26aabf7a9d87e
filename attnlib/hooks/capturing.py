"""capturing: watch the attention of any model while a block of code runs it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from typing import Any

import torch
from torch import nn

from attnlib.errors import InputError, NeedsError
from attnlib.hooks.budget import Budget
from attnlib.hooks.builder import RecordBuilder
from attnlib.hooks.limits import KINDS, Limits
from attnlib.hooks.missed import check_nothing_missed, gap_notes
from attnlib.hooks.raw_windows import raw_notes, raw_windows
from attnlib.hooks.session import Session
from attnlib.record import AttentionRecord, Provenance
from attnlib.record.indices import Indices, bytes_allowed

__all__ = ["capturing"]


@contextmanager
def capturing(
    model: nn.Module | Any,
    *,
    layers: Indices | None = None,
    heads: Indices | None = None,
    kinds: Iterable[str] | None = KINDS,
    gradients: bool = False,
    max_memory: float | int | None = None,
    queries: Indices | None = None,
) -> Iterator[AttentionRecord]:
    """Watch the attention of ``model``, as loaded, while the block runs it.

    Parameters
    ----------
    model : any module; it is given back exactly as it came, also after an exception.
    layers : layer indices (call order within a stream) to keep; None = all. Other layers are let go while
        the forward pass runs; negative indices count from the end, so that many of the newest are held.
    heads : head indices to keep; None = all.
    kinds : which kinds of attention to keep: "self", "cross", "pool"; None = all.
    gradients : keep the graph, so that ``record.differentiate(score)`` works; also with frozen parameters.
    max_memory : bytes that the record may hold at any moment of the capture, besides what the model and
        autograd need themselves.
    queries : query rows to keep of every call; None = all. Keys are kept whole. A call that works in windows
        keeps all its rows.

    Yields
    ------
    The record, filled by the forward pass(es) inside the block.

    Raises
    ------
    CaptureError
        If an attention call was missed or does not reproduce the model's own output.
    InputError
        If a selection is empty or wrong.
    BudgetError
        As soon as more than ``max_memory`` would be held; says how much the capture is expected to need.
    """
    module = _module(model)
    limits = Limits(layers=layers, heads=heads, queries=queries, kinds=kinds)
    budget = Budget(
        module,
        bytes_allowed(max_memory),
        gradients=gradients,
        num_layers=None if limits.layers is None else len(limits.layers),
    )
    if gradients and torch.is_inference_mode_enabled():
        raise NeedsError("gradients=True cannot work under torch.inference_mode(): leave it for the capture")
    record = AttentionRecord(provenance=_provenance(model, module))
    builder = RecordBuilder(module, record, limits=limits, budget=budget)
    session = Session(
        module, gradients=gradients, limits=limits, on_call=builder.look, on_forward=builder.add
    )
    if session.keeper is not None:
        builder.on_release = session.keeper.forget
        record.on_differentiate = session.keeper.differentiate
    with _eager_stance:
        session.start()
        try:
            with torch.set_grad_enabled(gradients or torch.is_grad_enabled()):
                yield record
        finally:
            session.stop()
    missed = check_nothing_missed(session, record.layers)
    raw = tuple(raw_windows(module, record.layers))
    record.gaps = (*missed.gaps, *raw, *builder.gaps)
    builder.finish((*missed.notes, *raw_notes(raw), *gap_notes(builder.gaps)))


class _EagerStance:
    """Let compiled modules run their original code, so that it can be seen.

    The stance belongs to the whole process: the first of several captures at work, in any thread, takes it,
    and the last one gives it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._captures = 0
        self._stance: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._captures == 0:
                self._stance = torch.compiler.set_stance("force_eager")
            self._captures += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._captures -= 1
            if self._captures == 0:
                self._stance.__exit__(None, None, None)


_eager_stance = _EagerStance()


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


@cache
def _version(package: str) -> str:
    return metadata.version(package)


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
        versions[package] = _version(package.replace("open_clip", "open-clip-torch"))
    return Provenance(str(known), "sdpa", versions)
