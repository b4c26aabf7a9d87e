"""One attention call as it was seen, before it becomes a layer of the record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from attnlib.errors import CaptureError
from attnlib.hooks.origins import TokenSequence
from attnlib.hooks.placement import Placement
from attnlib.hooks.trail import Frame
from attnlib.hooks.verify import compare, tolerance
from attnlib.record import AttentionSource
from attnlib.record.released import ReleasedAttention

__all__ = ["Call"]


@dataclass(eq=False)
class Call:
    """One attention call.

    Parameters
    ----------
    frame : the module that made it.
    root : the outermost module of the forward pass.
    source : what computes its weights.
    forward : number of the forward pass within the capture.
    query_sequence, key_sequence : the tokens of its rows and columns, if they could be followed.
    query_rows, key_rows : token numbers of rows and columns, broadcastable to [batch, head, row].
    unplaced : why the weights cannot be shown at token positions.
    rows, expected : a few output rows, to check again what is kept by reference.
    versions : write counters of the tensors that are kept by reference.
    shape : (batch, heads, queries, keys) of the call as it was made, before anything was left out.
    gradient_bytes : size of the gradient at what is kept of its output.
    number : of the call within the forward pass, from 1.
    follows : number of the last call that its inputs depend on; 0 = none, None = not known.
    value_place : where its values stand in memory: storage and offset.
    parts : the calls that were put together to this one.
    blank : rows of weights in which a mask hides everything.
    apart : why it does not come after the call before it in its stream; None if it does.
    replaced : token numbers of the rows of its output that the module overwrote with those of a later call.
    """

    frame: Frame
    root: Frame
    source: AttentionSource | Any  # set by whoever places the call
    forward: int
    query_sequence: TokenSequence | None = None
    key_sequence: TokenSequence | None = None
    query_rows: Tensor | None = None
    key_rows: Tensor | None = None
    unplaced: str | None = None
    serial: int | None = None
    rows: list[int] = field(default_factory=list)
    expected: Tensor | None = None
    versions: tuple[tuple[Tensor, int], ...] = ()
    keys: Any = None
    notes: tuple[str, ...] = ()
    step: int | None = None
    placement: Placement | None = None
    complete: bool = True
    missing: int = 0
    blank: int = 0
    heads: tuple[int, ...] | None = None
    total_heads: int | None = None
    queries: tuple[int, ...] | None = None
    total_queries: int | None = None
    shape: tuple[int, int, int, int] = (0, 0, 0, 0)
    gradient_bytes: int = 0
    number: int = 0
    follows: int | None = None
    value_place: tuple[int, int] | None = None
    parts: tuple[Call, ...] = ()
    apart: str | None = None
    replaced: Tensor | None = None

    def remember(self, rows: list[int], expected: Tensor) -> None:
        """Keep a few output rows, and the write counters of what is kept by reference."""
        self.rows, self.expected = rows, expected.clone()
        value = getattr(self.source, "value", None)
        if self.value_place is None and isinstance(value, Tensor):
            self.value_place = value.untyped_storage().data_ptr(), int(value.storage_offset())
        self.versions = tuple((one, _version(one)) for one in _referred(self.source))

    def remember_kept(self, output: Tensor, heads: Any, rows: list[int] | slice) -> None:
        """Keep output rows of the heads and queries that were not left out.

        Parameters
        ----------
        output : of the call, [batch, head, query, dim].
        heads, rows : what is kept.
        """
        if self.heads is None and self.queries is None:
            return
        own = self.rows
        if self.queries is not None:
            own = sorted({0, len(self.queries) // 2, len(self.queries) - 1})
        kept = output[:, heads][:, :, rows]
        self.remember(own, kept[:, :, own])

    def release(self) -> None:
        """Let go of every tensor; only the shape stays."""
        self.source = ReleasedAttention(self.name, tuple(self.source.shape))  # type: ignore[arg-type]
        self.expected, self.versions, self.parts = None, (), ()

    def absorbed(self, source: AttentionSource) -> None:
        """Take over the source that shares the keys of a later step, and hold no others."""
        held = {one.untyped_storage().data_ptr() for one in _referred(source)}
        self.source = source
        self.versions = tuple(
            (one, count) for one, count in self.versions if one.untyped_storage().data_ptr() in held
        )

    def follows_like(self, other: Call) -> bool:
        """Tell whether two calls are known to depend on the same calls, so on neither of them."""
        return self.follows is not None and self.follows == other.follows

    def check_unchanged(self) -> None:
        """Refuse if the model wrote over what was kept, such as a cache of fixed size.

        Raises
        ------
        CaptureError
            If the weights no longer reproduce the output of the call.
        """
        for part in self.parts:
            part.check_unchanged()
        changed = [one for one, count in self.versions if not _version(one) == count >= 0]
        if self.expected is None or not changed:
            return
        difference, scale = compare(self.source, self.rows, self.expected)
        query = getattr(self.source, "query", None)
        asked = any(
            one is query and not one.is_inference() for one in changed
        )  # few of its rows are compared
        if asked or not difference <= tolerance(self.expected.dtype) * max(scale, 1e-3):
            raise CaptureError(
                f"{self.name}: the model wrote over the queries, keys or values of an earlier call (a cache "
                "of fixed size?), so its weights are lost; use a cache that grows "
                "(cache_implementation='dynamic')"
            )

    @property
    def first_axes(self) -> set[int]:
        """Sizes of the first axes of what the model was called with: one of them is the batch."""
        return {one.shape[0] for one in self.root.named.values() if one.dim() > 1}

    @property
    def name(self) -> str:
        """Path of the module that made the call."""
        return self.frame.name


def _referred(source: AttentionSource) -> list[Tensor]:
    words = ("query", "key", "value", "attention", "mask")
    return [one for word in words if isinstance(one := getattr(source, word, None), Tensor)]


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version
