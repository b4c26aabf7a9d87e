"""One attention call as it was seen, before it becomes a layer of the record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from attnlib.hooks.origins import TokenSequence
from attnlib.hooks.placement import Placement
from attnlib.hooks.trail import Frame
from attnlib.record import AttentionSource

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
    """

    frame: Frame
    root: Frame
    source: AttentionSource
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
    heads: tuple[int, ...] | None = None
    total_heads: int | None = None

    @property
    def name(self) -> str:
        """Path of the module that made the call."""
        return self.frame.name
