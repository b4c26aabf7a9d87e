"""Name the calls whose windows could not be put at the places of their tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from attnlib.record import LayerAttention
from attnlib.record.gaps import Gap

__all__ = ["raw_notes", "raw_windows"]


def raw_windows(model: nn.Module, layers: Sequence[LayerAttention]) -> Iterator[Gap]:
    """Yield a gap for each self-attention call that has weights, but none from token to token.

    Parameters
    ----------
    model : the module that ran.
    layers : its calls.
    """
    done: set[str] = set()
    for layer in layers:
        if layer.unplaced is None or layer.kind != "self" or layer.name in done:
            continue
        done.add(layer.name)
        module = type(model.get_submodule(layer.name)).__name__
        what = f"has weights inside windows only, not from token to token ({layer.unplaced})"
        yield Gap(layer.name, module, what, layer.stream, float(layer.index))


def raw_notes(gaps: Sequence[Gap]) -> Iterator[str]:
    """Say it once for each reason."""
    for reason in dict.fromkeys(one.reason for one in gaps):
        own = [one for one in gaps if one.reason == reason]
        more = f", and {len(own) - 1} more like it" if len(own) > 1 else ""
        yield f"{own[0]}{more}: window_weights() gives them raw"
