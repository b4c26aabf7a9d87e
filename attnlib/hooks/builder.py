"""Fill a record, forward pass by forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from attnlib.errors import CaptureError, InputError
from attnlib.hooks.budget import Budget
from attnlib.hooks.calls import Call
from attnlib.hooks.describe import Describer
from attnlib.hooks.limits import Limits
from attnlib.hooks.origins import Origins
from attnlib.hooks.settle import Settler
from attnlib.hooks.steps import Steps
from attnlib.record import AttentionRecord, LayerAttention, PlacedAttention
from attnlib.record.gaps import Gap
from attnlib.record.heads import HeadsAttention
from attnlib.record.released import ReleasedAttention
from attnlib.record.steps import SteppedAttention

__all__ = ["RecordBuilder"]


class RecordBuilder:
    """Add the layers of each forward pass to a record; let go of what was not asked for as soon as possible.

    Parameters
    ----------
    model : the module that runs.
    record : what is filled.
    limits : what was asked for.
    budget : counts what is held.
    """

    def __init__(self, model: nn.Module, record: AttentionRecord, *, limits: Limits, budget: Budget) -> None:
        self._model = model
        self._record = record
        self._limits = limits
        self._budget = budget
        self._settler = Settler(model)
        self._steps = Steps()
        self.gaps: list[Gap] = []
        self._kept: list[tuple[Call, LayerAttention]] = []
        self._parts: list[tuple[Call, LayerAttention]] = []  # of parts that ran on their own before the rest
        self.on_release: Callable[[Any], None] = lambda _: None

    def look(self, calls: list[Call]) -> None:
        """See the calls of a pass that still runs: the last one may be part of what is to come."""
        if self._limits.any:
            step = self._steps.number + 1 if self._steps.continues(calls) else None
            groups = self._settler.preview(calls, step=step)
            closed = [one for one in groups if all(call.frame is not calls[-1].frame for call in one[0])]
            before = [(layer.stream, layer.index, layer.kind) for layer in self._record.layers]
            known = [*before, *((stream, index, kind) for _, stream, index, kind in closed)]
            unwanted = self._limits.unwanted(known, final=False)[len(before) :]
            for (group, *_), useless in zip(closed, unwanted, strict=True):
                if useless:
                    self._release(group)
        if self._limits.any:
            calls = [call for call in calls if call.frame is not calls[-1].frame]
        self._budget.check(calls)

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
        step = self._steps.number if continuing else None
        self._let_go(self._settler.preview(calls, step=step))
        settled = self._settler.settle(calls, step=step)
        for call, layer in settled:
            if call.apart is not None:
                module = type(call.frame.module).__name__
                self.gaps.append(Gap(layer.name, module, call.apart, layer.stream, layer.index - 0.5))
        if not continuing:
            describer = Describer(self._model, origins, output)
            described = [*self._parts, *settled]
            describer.describe(described, record)
            record.readout_assumed |= frozenset(describer.unread)
            part = bool(calls) and calls[0].root.name != ""
            self._parts = described if part else self._parts if not calls else []
        layers = [layer for _, layer in settled]
        self._steps.take(layers, continuing=continuing)
        self._steps.remember(calls)
        record.layers = (*record.layers, *layers)
        self._kept += settled
        for call, layer in self._kept:
            if isinstance(layer.source, SteppedAttention) and call.source is not layer.source:
                call.absorbed(layer.source)
        self._budget.settle([call for call, _ in self._kept])
        self._budget.check([call for call, _ in settled])

    def _let_go(self, groups: Sequence[tuple[Sequence[Call], str, int, str]]) -> None:
        """Release what is not among the layers that were asked for, now that the pass has ended."""
        if not self._limits.any:
            return
        before = [(layer.stream, layer.index, layer.kind) for layer in self._record.layers]
        known = [*before, *((stream, index, kind) for _, stream, index, kind in groups)]
        unwanted = self._limits.unwanted(known, final=True)
        for (call, layer), useless in zip(self._kept, unwanted, strict=False):
            if useless and not isinstance(layer.source, ReleasedAttention):
                self._release([call])
                layer.source = call.source
        for (group, *_), useless in zip(groups, unwanted[len(before) :], strict=True):
            if useless:
                self._release(group)

    def _release(self, group: Sequence[Call]) -> None:
        for call in group:
            if isinstance(call.source, ReleasedAttention):
                continue
            self.on_release(call.source)
            if isinstance(call.source, PlacedAttention):
                for piece in call.source.pieces:
                    self.on_release(piece.source)
            if isinstance(call.source, HeadsAttention):
                for part in call.source.parts:
                    self.on_release(part)
            call.release()

    def finish(self, notes: Sequence[str]) -> None:
        """Keep what was asked for.

        Raises
        ------
        InputError
            If nothing of it exists.
        CaptureError
            If what was kept was overwritten by the model, or it became clear too late that it was asked for.
        """
        record = self._record
        for call, _ in self._kept:
            call.check_unchanged()
        have = sorted({layer.kind for layer in record.layers})
        kinds = self._limits.kinds
        chosen: tuple[LayerAttention, ...] = tuple(one for one in record.layers if one.kind in kinds)
        if not chosen:
            raise InputError(f"no attention call has kinds={list(kinds)}; the model ran {', '.join(have)}")
        record.layers = chosen
        if self._limits.layers is not None:
            record.layers = record.select(layers=self._limits.layers).layers
        late = [one.name for one in record.layers if isinstance(one.source, ReleasedAttention)]
        if late:
            raise CaptureError(
                f"{late[0]} was asked for by layers= or kinds=, but its place among the layers became known "
                "only after it had been let go: capture all layers, then record.select(...)"
            )
        found = dict.fromkeys(f"{one.name}: {note}" for one in record.layers for note in one.notes)
        sources = dict.fromkeys(one.source.kind_of_source for one in record.layers)
        record.provenance = replace(
            record.provenance, source=", ".join(sources), notes=(*record.provenance.notes, *notes, *found)
        )
