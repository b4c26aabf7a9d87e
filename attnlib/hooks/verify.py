"""Check, as it happens, that the weights of a call times its values are the call's real output."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor

from attnlib.errors import CaptureError
from attnlib.record import AttentionSource, GivenAttention

if TYPE_CHECKING:
    from attnlib.hooks.calls import Call

__all__ = ["check_numbers", "compare", "tolerance", "unlike_softmax", "verify"]

_ROWS = 3
_AXES = ("items", "heads", "queries", "keys")


def tolerance(dtype: torch.dtype) -> float:
    """Largest difference, as a share of the largest value, that rounding explains."""
    return {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}.get(
        dtype, 5e-2
    )


def check_numbers(call: Call) -> None:
    """Refuse a call over nothing, or whose weights are no numbers; rows that see nothing become 0.

    A softmax over a row in which everything is hidden by minus infinity is NaN in a model that computes it by
    hand.

    Raises
    ------
    CaptureError
        If no row of the weights holds numbers.
    """
    source = call.source
    if 0 in source.shape:
        sizes = ", ".join(f"{n} {word}" for n, word in zip(source.shape, _AXES, strict=True))
        raise CaptureError(f"{call.name}: attention over nothing ({sizes})")
    if not isinstance(source, GivenAttention):
        return
    blank = source.attention[..., 0].isnan()
    if not bool(blank.any()):
        if call.complete and not call.blank:  # rows that the model itself sets to 0
            call.blank = int((~source.attention.any(dim=-1)).sum())
        return
    if bool(blank.all()):
        _refuse_nan(call.name)
    source.attention = torch.where(blank[..., None], 0.0, source.attention)
    call.notes = (*call.notes, f"{int(blank.sum())} rows are NaN in the model (they see nothing): shown as 0")


def _refuse_nan(name: str) -> NoReturn:
    raise CaptureError(
        f"{name}: its attention is NaN in the model itself, so there is no map: look at the inputs and "
        "at the weights that were loaded"
    )


def verify(source: AttentionSource, output: Tensor, name: str) -> tuple[list[int], Tensor]:
    """Compare a few rows of weights x values with the real output; return the rows.

    Parameters
    ----------
    source : what was kept of the call.
    output : what the call returned, [batch, head, query, dim].
    name : module path, for the error message.

    Raises
    ------
    CaptureError
        If they differ by more than rounding: the weights would be wrong, so none are given; or if they are
        NaN.
    """
    num_queries = source.shape[2]
    rows = sorted({0, num_queries // 2, num_queries - 1})[:_ROWS]
    real = output[:, :, rows]
    difference, scale = compare(source, rows, real)
    if difference != difference:
        _refuse_nan(name)
    if not difference <= tolerance(output.dtype) * max(scale, 1e-3):
        raise CaptureError(
            f"{name}: the weights that were kept do not reproduce the output of the attention call "
            f"(largest difference {difference:.3g} at values up to {scale:.3g}), so no map is given"
        )
    return rows, real


def unlike_softmax(call: Call) -> str | None:
    """Say it where the weights that met the values were changed after their softmax: rows not summing to 1.

    Sinks and mixed heads, which have notes of their own, and parts of rows are left out.
    """
    source = call.source
    if not isinstance(source, GivenAttention) or call.notes or call.missing or not call.complete:
        return None
    with torch.no_grad():
        sums = source.weights(slice(None), call.rows).sum(dim=-1)
    allowed = 1e-3 if source.attention.dtype in (torch.float32, torch.float64) else 3e-2
    odd = sums[((sums - 1).abs() > allowed) & (sums != 0)]
    if not odd.numel():
        return None
    return f"weights are changed after the softmax: rows sum to {odd.min():.3g} to {odd.max():.3g}, not to 1"


def compare(source: AttentionSource, rows: list[int], real: Tensor) -> tuple[float, float]:
    """Return the largest difference between weights x values and the real rows, and their largest value."""
    with torch.no_grad():
        weights = source.weights(slice(None), rows)
        values = source.values(slice(None)).to(weights.dtype)
        expected = torch.stack([torch.matmul(a, b) for a, b in zip(weights, values, strict=True)])
        real = real.to(weights.dtype)
        seen = weights.abs().sum(dim=-1, keepdim=True) != 0
        if not bool(seen.all()):
            # rows without any allowed key are NaN in some kernels and an average in others: not comparable
            expected, real = torch.where(seen, expected, 0.0), torch.where(seen, real, 0.0)
        return (expected - real).abs().max().item(), real.abs().max().item()
