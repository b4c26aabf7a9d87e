"""explain: one entrance to every method."""

from __future__ import annotations

from typing import Any

import torch

from attnlib.errors import InputError
from attnlib.methods.card import MethodCard
from attnlib.methods.looks import coarse, padding_at_the_end, refuse_mixed_items, warnings_about
from attnlib.methods.registry import METHODS
from attnlib.methods.request import Answer, Request
from attnlib.record import AttentionRecord, Relevance
from attnlib.record.indices import Indices, bytes_allowed, whole_numbers

__all__ = ["explain"]

JOINED = "the steps of the generation are joined: one row per token, given or written"


def explain(
    record: AttentionRecord,
    method: str = "rollout",
    *,
    query: Any = None,
    layers: Indices | None = None,
    max_memory: float | int | None = None,
    **options: Any,
) -> Relevance:
    """Say how much each token matters, by one method.

    Parameters
    ----------
    record : what ``capture``, ``capturing`` or ``AttentionRecord.from_weights`` returned; with several
        streams, one of them: ``record.select(stream="vision")``.
    method : a name in METHODS.
    query : whose view is asked for: None = the tokens the model's head reads, by the layout (or the
        pooler's own row) | "mean" of the patches | "all" | a token name such as "class" | a token
        index, prefix tokens counted | a patch (row, column) | a list of these: their mean | one per
        item: a 1-D tensor of token indices, or a list of lists.
    layers : indices of the layers to use; None = the method's default.
    max_memory : bytes that the method may take for whole matrices over the tokens, where it needs such (its
        card says so); None = what is free on the machine.
    **options : the method's own; see ``print(METHODS[method].to_text())``.

    Returns
    -------
    Scores as the method gives them, with notes that a reader of the map must know.

    Raises
    ------
    InputError
        If the method, an option, a layer or the query does not exist; near names are given.
    NeedsError
        If the record lacks what the method needs; names the argument of ``capture``.
    BudgetError
        If whole matrices would take more than ``max_memory``, before they are made; says how much.

    Examples
    --------
    >>> weights = [torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]]])]
    >>> explain(AttentionRecord.from_weights(weights), "rollout", query=0).scores.tolist()
    [[0.5, 0.5]]
    """
    card = METHODS[method]
    settled = card.settle(options)
    if not isinstance(record, AttentionRecord):
        raise InputError(
            f"explain takes an AttentionRecord, got {type(record).__name__}: capture a model first"
        )
    if not record.layers:
        raise InputError("the record holds no attention call")
    steps = {layer.step for layer in record.layers if layer.step is not None}
    whole = record.joined() if len(steps) > 1 else record
    chosen = layers if layers is None or isinstance(layers, int) else whole_numbers(layers, "layers")
    request = Request(whole, query, chosen, method, bytes_allowed(max_memory))
    request.require(card.needs)
    if card.explains_target:
        refuse_mixed_items(whole, settled.get("target"))
    with torch.no_grad():
        answer = _run(card, request, settled)
    if whole is not record:
        answer.notes = (*answer.notes, JOINED)
    if card.explains_target:
        answer.notes = (*answer.notes, *padding_at_the_end(whole, settled.get("target")))
    return _relevance(request, answer, settled)


def _run(card: MethodCard, request: Request, settled: dict[str, Any]) -> Answer:
    try:
        return card.run(request, **settled)
    except RuntimeError as problem:
        if not any(word in str(problem) for word in ("inplace operation", "in-place operation")):
            raise
    with torch.autograd.graph.allow_mutation_on_saved_tensors():  # a model that runs again says x += ...
        return card.run(request, **settled)


def _relevance(request: Request, answer: Answer, options: dict[str, Any]) -> Relevance:
    layout = answer.layout or request.layout
    seen = answer.seen
    if seen is None and len(request.record.streams) == 1:
        seen = request.seen
    if seen is not None and seen.shape[-1] != layout.num_tokens:
        seen = None
    shown = {name: value for name, value in {**options, **answer.options}.items() if _plain(value)}
    if request.layers is not None:
        shown["layers"] = request.layers
    kind = answer.scores.dtype
    found = Relevance(
        answer.scores.to(torch.promote_types(kind, torch.float32)),
        layout,
        request.method,
        shown,
        answer.query or ("readout" if request.query is None else str(request.query)),
        request.record.provenance,
        answer.identity,
        seen,
        tuple(dict.fromkeys((*answer.notes, *coarse(kind)))),
        request.record.views,
    )
    found.notes = (*found.notes, *warnings_about(found, METHODS[request.method].family))
    return found


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_plain(one) for one in value)
    return value is None or isinstance(value, str | bool | int | float)
