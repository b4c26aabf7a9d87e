"""Steps of a generation: recognised by their growing keys, which are kept once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from attnlib.hooks.calls import Call
from attnlib.hooks.trail import CACHES
from attnlib.record import GivenAttention, LayerAttention, ProjectedAttention
from attnlib.record.steps import KeyStore, SteppedAttention

__all__ = ["Steps"]


class Steps:
    """Remember the last keys of each module over the forward passes of one capture."""

    def __init__(self) -> None:
        self._stores: dict[tuple[str, int], KeyStore] = {}
        self._last: dict[tuple[str, int], LayerAttention] = {}
        self.number = 0

    def continues(self, calls: Sequence[Call]) -> bool:
        """Tell whether these calls go on where the last pass ended: fewer queries than keys, again."""
        places = _places([call.name for call in calls])
        for call, place in zip(calls, places, strict=True):
            before = self._last.get(place)
            _, _, queries, keys = call.shape
            if before is None or before.kind != "self" or queries >= keys:
                continue
            grown = keys == before.num_keys + queries
            if grown or (keys == before.num_keys and queries <= before.num_queries and _cached(call)):
                return True
        return False

    def take(self, layers: Sequence[LayerAttention], *, continuing: bool) -> None:
        """Share the keys of these layers with the steps before, and remember them for the next."""
        places = _places([layer.name for layer in layers])
        for layer, place in zip(layers, places, strict=True):
            before = self._last.get(place)
            source = layer.source
            if continuing and before is not None and layer.kind == before.kind != "self":
                layer.key_stream = layer.key_stream or before.key_stream
                layer.key_layout = layer.key_layout or before.key_layout
            if isinstance(source, ProjectedAttention):
                store = self._stores.get(place) if continuing else None
                length = source.key.shape[2]
                if store is None or not store.grow(source.key, source.value):
                    store = KeyStore(source.key, source.value)
                    self._stores[place] = store
                if continuing and before is not None and isinstance(before.source, ProjectedAttention):
                    first = self._stores_of(before.source, store)
                    before.source = first
                if continuing:
                    layer.source = _stepped(source, store, length)
            elif continuing and before is not None and isinstance(before.source, GivenAttention):
                before.source = replace(before.source, value=None)  # the next step holds these values too
            self._last[place] = layer

    def _stores_of(
        self, source: ProjectedAttention, store: KeyStore
    ) -> ProjectedAttention | SteppedAttention:
        length = source.key.shape[2]
        if store.key.shape[2] < length or not torch.equal(store.key[:, :, length - 1], source.key[:, :, -1]):
            return source
        return _stepped(source, store, length)


def _stepped(source: ProjectedAttention, store: KeyStore, length: int) -> SteppedAttention:
    return SteppedAttention(
        source.query,
        store,
        length,
        _needed(source.mask),
        source.is_causal,
        source.scale,
        source.output_gradient,
    )


def _needed(mask: Tensor | None) -> Tensor | None:
    """Drop a mask that hides nothing."""
    if mask is None or mask.shape[-2] > 1:
        return mask
    free = mask.all() if mask.dtype == torch.bool else (mask == 0).all()
    return None if bool(free) else mask


def _places(names: Sequence[str]) -> list[tuple[str, int]]:
    """Count the calls of one module within a forward pass."""
    counts: dict[str, int] = {}
    places = []
    for name in names:
        counts[name] = counts.get(name, -1) + 1
        places.append((name, counts[name]))
    return places


def _cached(call: Call) -> bool:
    return any(frame.kwargs.get(word) is not None for frame in (call.root, call.frame) for word in CACHES)
