"""Steps of a generation: recognised by their growing keys, which are kept once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from weakref import ref

import torch
from torch import Tensor

from attnlib.hooks.calls import Call
from attnlib.hooks.trail import CACHES
from attnlib.record import GivenAttention, LayerAttention, ProjectedAttention
from attnlib.record.steps import REORDERED, SLID, KeyStore, SteppedAttention

__all__ = ["Steps"]


class Steps:
    """Remember the last keys of each module over the forward passes of one capture."""

    def __init__(self) -> None:
        self._cache: ref[Any] | None = None
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
            held = keys <= before.num_keys + queries or self._same_cache(call)
            if grown or (held and queries <= before.num_queries and _caches(call)):
                return True
        return False

    def _same_cache(self, call: Call) -> bool:
        """Tell whether a call reads the cache that the pass before it was given: one of fixed size, say."""
        return self._cache is not None and any(one is self._cache() for one in _caches(call))

    def remember(self, calls: Sequence[Call]) -> None:
        """Note which cache a pass that has ended was given."""
        caches = [one for call in calls[:1] for one in _caches(call) if hasattr(one, "__weakref__")]
        self._cache = ref(caches[0]) if caches else None

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
                source = _with_heads_of(source, store)
                store = None if store is None else _as_repeated(store, source)
                length = source.key.shape[2]
                grown = store is not None and store.grow(source.key, source.value)
                if store is not None and not grown and layer.kind == "self":
                    now, old = (source.key, source.value), (store.key, store.value)
                    layer.notes = (*layer.notes, *_continued(now, old, layer.num_queries))
                if store is None or not grown:
                    store = KeyStore(source.key, source.value)
                    self._stores[place] = store
                if continuing and before is not None and isinstance(before.source, ProjectedAttention):
                    first = self._stores_of(_with_heads_of(before.source, store), store)
                    before.source = first
                if continuing:
                    layer.source = _stepped(source, store, length)
            elif continuing and before is not None and isinstance(before.source, GivenAttention):
                values = getattr(source, "value", None), before.source.value
                how = _continued(values[:1], values[1:], layer.num_queries) if layer.kind == "self" else ()
                layer.notes = (*layer.notes, *how)
                if not how:
                    before.source = replace(before.source, value=None)  # the next step holds these values too
            self._last[place] = layer

    def _stores_of(
        self, source: ProjectedAttention, store: KeyStore
    ) -> ProjectedAttention | SteppedAttention:
        length = source.key.shape[2]
        if store.key.shape[2] < length or not torch.equal(store.key[:, :, length - 1], source.key[:, :, -1]):
            return source
        return _stepped(source, store, length)


def _continued(new: Sequence[Tensor | None], old: Sequence[Tensor | None], queries: int) -> tuple[str, ...]:
    """Say how the keys and values of a step go on from those of the step before, if they are not the same.

    Parameters
    ----------
    new, old : keys, values of the two steps, [batch, head, key, dim]; None where they were not kept.
    queries : rows of this step.
    """
    pairs = [(now, was) for now, was in zip(new, old, strict=True) if now is not None and was is not None]
    if not pairs:
        return ()
    length, before = pairs[0][0].shape[2], pairs[0][1].shape[2]
    kept = length - queries
    alike = pairs[0][0].shape[:2] == pairs[0][1].shape[:2]
    if alike and length > before and all(torch.equal(now[:, :, :before], was) for now, was in pairs):
        return ()
    window = alike and 0 <= kept <= before and length < before + queries
    if window and all(torch.equal(now[:, :, :kept], was[:, :, before - kept :]) for now, was in pairs):
        return (SLID,)
    return (REORDERED,) if length > before or not alike else ()


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


def _caches(call: Call) -> list[Any]:
    frames = (call.root, call.frame)
    return [one for frame in frames for word in CACHES if (one := frame.kwargs.get(word)) is not None]


def _with_heads_of(source: ProjectedAttention, store: KeyStore | None) -> ProjectedAttention:
    """Take repeated key heads back, where a step repeats them for its queries and the one before did not."""
    if store is None or not 0 < store.key.shape[1] < source.key.shape[1]:
        return source
    few = store.key.shape[1]
    if source.key.shape[1] % few:
        return source
    pair = [one.unflatten(1, (few, -1)) for one in (source.key, source.value)]
    if any(bool((one != one[:, :, :1]).any()) for one in pair):
        return source
    return replace(source, key=pair[0][:, :, 0], value=pair[1][:, :, 0])


def _as_repeated(store: KeyStore, source: ProjectedAttention) -> KeyStore:
    """Repeat the key heads of a store no more, where the next step does not."""
    held = ProjectedAttention(source.query, store.key, store.value)
    plain = _with_heads_of(held, KeyStore(source.key, source.value))
    if plain is not held:
        store.key, store.value = plain.key, plain.value
    return store
