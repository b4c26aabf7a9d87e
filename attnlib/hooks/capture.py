"""capture: one forward pass (and one backward pass if a target is given) into a record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from attnlib.errors import CaptureError, InputError, NeedsError
from attnlib.hooks.capturing import capturing
from attnlib.hooks.describe import ASSUMED, JOINS_LATE, with_notes, with_readout
from attnlib.hooks.frozen import ParametersAsConstants
from attnlib.hooks.internals import collecting
from attnlib.hooks.probe import known_readout
from attnlib.hooks.rerun import Rerun
from attnlib.hooks.targets import target_score
from attnlib.record import AttentionRecord
from attnlib.record.indices import Indices, bytes_allowed

__all__ = ["capture"]

_IN_PLACE = ("inplace operation", "in-place operation")  # as torch calls it


def capture(
    model: Any,
    inputs: Any,
    *,
    target: Any = None,
    layers: Indices | None = None,
    heads: Indices | None = None,
    internals: bool = False,
    max_memory: float | int | None = None,
    queries: Indices | None = None,
) -> AttentionRecord:
    """Run the model once and keep its attention; once backward too if a target is given.

    Parameters
    ----------
    model : any module, or a LoadedModel.
    inputs : a mapping of keyword arguments, a tensor, or a tuple of positional arguments of which one is a
        tensor or a mapping; pictures or texts for a LoadedModel.
    target : what to differentiate: a label index, a label name, one per item (a list, array or tensor), or a
        function that gets the model's output and returns one score per item.
    layers, heads, max_memory, queries : as for :func:`capturing`.
    internals : keep what norm-based methods need; ``max_memory`` holds for that, too.

    Raises
    ------
    CaptureError, InputError, NeedsError, BudgetError
        As for :func:`capturing`; also if the target does not fit the output.
    """
    limit = bytes_allowed(max_memory)
    if hasattr(target, "tolist") and not callable(target):  # a number or an array of numpy or torch
        target = target.tolist()
    narrowed = {"layers": layers, "heads": heads, "max_memory": limit, "queries": queries}
    try:
        return _captured(model, inputs, target, internals=internals, **narrowed)
    except NeedsError as problem:
        if not isinstance(problem.__cause__, CheckpointError):
            raise
        return _captured(model, inputs, target, internals=internals, as_constants=False, **narrowed)
    except RuntimeError as problem:
        if target is not None and "Inference tensors" in str(problem):
            raise NeedsError(
                "the model, or what goes into it, was made under torch.inference_mode(), which rules out "
                "gradients: load it outside of it, or capture without a target"
            ) from problem
        if target is None or not any(word in str(problem) for word in _IN_PLACE):
            raise
    with torch.autograd.graph.allow_mutation_on_saved_tensors():  # x += ...: copies what it changes
        return _captured(model, inputs, target, internals=internals, **narrowed)


def _captured(
    model: Any, inputs: Any, target: Any, *, internals: bool, as_constants: bool = True, **narrowed: Any
) -> AttentionRecord:
    module = model if isinstance(model, nn.Module) else getattr(model, "model", model)
    args, kwargs, prepared = _arguments(model, inputs)
    differentiable = as_constants and target is not None and isinstance(module, nn.Module)
    constants = ParametersAsConstants(module) if differentiable else nullcontext()
    drawn = torch.get_rng_state()
    with (
        capturing(model, gradients=target is not None, **narrowed) as record,
        collecting(module, max_memory=narrowed["max_memory"]) if internals else nullcontext() as collected,
    ):
        if target is None:
            with torch.no_grad():
                output = module(*args, **kwargs)
        else:
            with constants:
                output = module(*args, **kwargs)
    record.output = output
    again = not module.training  # one more pass would count twice in statistics, and drop at random
    if record.readout_assumed and again and not getattr(model, "readout_is_known", False):
        _probe(module, args, kwargs, record)
    if prepared is not None:
        record.views = tuple(prepared.views)
        name_tokens = getattr(model, "name_tokens", None)
        if callable(name_tokens):
            name_tokens(record, prepared)
    if collected is not None:
        collected.attach(record)

    taps = {} if collected is None else collected.taps
    record.on_rerun = Rerun(module, args, kwargs, target, _labels(model, module), taps, drawn)
    if target is not None:
        with torch.enable_grad():  # the caller may be under no_grad; the forward pass was not
            score = target_score(output, target, labels=_labels(model, module))
        record.differentiate(score)
    return record


def _probe(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], record: AttentionRecord) -> None:
    """Find out by gradient what the head reads, for the streams in which it could not be followed."""
    found = {}
    for stream in record.readout_assumed:
        own = [one for one in record.layers if one.stream == stream and one.kind == "self"]
        layout = record.layouts.get(stream)
        if not own or layout is None or layout.grid is None or own[-1].num_queries != layout.num_tokens:
            continue
        try:
            with _own_random_numbers():
                tokens = known_readout(module, args, kwargs, own[-1].name, layout.num_tokens)
        except CaptureError:
            continue
        if not tokens:
            continue
        notes = [note for note in layout.notes if note != ASSUMED]
        later = [one for one in record.layers if one.stream == stream and one.kind == "pool"]
        if any(one.num_queries == 1 and one.num_keys > layout.num_tokens for one in later):
            notes.append(JOINS_LATE)
        new = with_readout(with_notes(layout, notes), tokens)
        found[stream] = new
        for one in own:
            one.query_layout = new if one.query_layout == layout else one.query_layout
            one.key_layout = new if one.key_layout == layout else one.key_layout
    record.layouts = {**record.layouts, **found}
    record.readout_assumed = record.readout_assumed.difference(found)


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Let a pass of attnlib's own take none of the caller's random numbers."""
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)


def _arguments(model: Any, inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """Turn ``inputs`` into positional and keyword arguments, and what prepared them (None = nobody)."""
    if hasattr(inputs, "inputs") and hasattr(inputs, "views"):
        return (), dict(inputs.inputs), inputs
    if isinstance(inputs, Mapping) or (hasattr(inputs, "data") and isinstance(inputs.data, Mapping)):
        return (), dict(inputs), None
    if isinstance(inputs, Tensor):
        return (inputs,), {}, None
    if isinstance(inputs, tuple) and any(isinstance(one, Tensor | Mapping) for one in inputs):
        return inputs, {}, None
    prepare = getattr(model, "prepare", None)
    if callable(prepare) and not isinstance(model, nn.Module):
        prepared: Any = prepare(inputs)
        return (), dict(prepared.inputs), prepared
    raise InputError(
        f"inputs must be a mapping of tensors, a tensor or a tuple of tensors, got {type(inputs).__name__}; "
        "pictures and texts need a model from load_model"
    )


def _labels(model: Any, module: nn.Module) -> dict[str, int]:
    labels = getattr(model, "labels", None)
    if not labels:
        labels = getattr(getattr(module, "config", None), "id2label", None) or {}
    pairs = labels.items() if isinstance(labels, Mapping) else enumerate(labels)
    return {str(name): int(index) for index, name in pairs}
