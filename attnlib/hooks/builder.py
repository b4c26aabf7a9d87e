"""Fill a record, forward pass by forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from attnlib.errors import InputError
from attnlib.hooks.calls import Call
from attnlib.hooks.describe import Describer
from attnlib.hooks.origins import Origins
from attnlib.hooks.settle import Settler
from attnlib.hooks.steps import Steps
from attnlib.record import AttentionRecord, LayerAttention

__all__ = ["RecordBuilder"]


class RecordBuilder:
    """Add the layers of each forward pass to a record, then narrow it to what was asked for."""

    def __init__(
        self,
        model: nn.Module,
        record: AttentionRecord,
        *,
        layers: int | Sequence[int] | None,
        kinds: Sequence[str],
    ) -> None:
        self._model = model
        self._record = record
        self._layers = layers
        self._kinds = tuple(kinds)
        self._settler = Settler(model)
        self._steps = Steps()
        self._kept: list[Call] = []

    def add(self, calls: list[Call], origins: Origins, output: Any) -> None:
        """Add the layers of one forward pass that has ended."""
        record = self._record
        record.output = output
        continuing = self._steps.continues(calls)
        if continuing:
            if self._steps.number == 0:
                for layer in record.layers:
                    layer.step = 0
            self._steps.number += 1
        settled = self._settler.settle(calls, step=self._steps.number if continuing else None)
        self._kept += [call for call, _ in settled]
        if not continuing:
            describer = Describer(self._model, origins, output)
            describer.describe(settled, record)
            record.readout_assumed |= frozenset(describer.unread)
        layers = [layer for _, layer in settled]
        self._steps.take(layers, continuing=continuing)
        record.layers = (*record.layers, *layers)

    def finish(self, notes: Sequence[str]) -> None:
        """Keep what was asked for.

        Raises
        ------
        InputError
            If nothing of it exists.
        CaptureError
            If what was kept was overwritten by the model.
        """
        record = self._record
        for call in self._kept:
            call.check_unchanged()
        have = sorted({layer.kind for layer in record.layers})
        chosen: tuple[LayerAttention, ...] = tuple(one for one in record.layers if one.kind in self._kinds)
        if not chosen:
            raise InputError(
                f"no attention call has kinds={list(self._kinds)}; the model ran {', '.join(have)}"
            )
        record.layers = chosen
        if self._layers is not None:
            record.layers = record.select(layers=self._layers).layers
        found = dict.fromkeys(f"{one.name}: {note}" for one in record.layers for note in one.notes)
        sources = dict.fromkeys(one.source.kind_of_source for one in record.layers)
        record.provenance = replace(
            record.provenance, source=", ".join(sources), notes=(*record.provenance.notes, *notes, *found)
        )
