"""Functions whose backward pass hands on relevance: the rules of Chefer et al. (CVPR 2021), one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "Copied",
    "Halves",
    "Keep",
    "Pass",
    "Product",
    "Scaled",
    "Share",
    "Sum",
    "by_weight",
    "safe",
]

_EPS = 1e-9
Keep = Callable[[Tensor, Tensor], None]


class Pass(torch.autograd.Function):
    """Another value; relevance passes unchanged."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, given: Tensor) -> Tensor:  # type: ignore[override]  # noqa: ARG004
        """Compute the value."""
        return output.clone()

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[None, Tensor]:  # type: ignore[override]  # noqa: ARG004
        """Hand on relevance."""
        return None, relevance


class Copied(torch.autograd.Function):
    """The same value; the rule for copies if several functions read it."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, readers: list[int]) -> Tensor:  # type: ignore[override]
        """Compute the value."""
        ctx.save_for_backward(output)
        ctx.readers = readers
        return output.clone()

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """Hand on relevance."""
        (x,) = ctx.saved_tensors
        return (x * safe(relevance, x) if ctx.readers[0] > 1 else relevance), None


class _Weighted(torch.autograd.Function):
    """A linear map: only positive products carry relevance; the bias takes none."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, x: Tensor, weight: Tensor, run: Any) -> Tensor:  # type: ignore[override]
        """Compute the value."""
        ctx.save_for_backward(x, weight)
        ctx.run = run
        return output.clone()

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[None, Tensor, None, None]:  # type: ignore[override]
        """Hand on relevance."""
        x, weight = ctx.saved_tensors
        with torch.enable_grad():
            parts = [one.detach().requires_grad_() for one in (x.clamp(min=0), x.clamp(max=0))]
            whole = ctx.run(parts[0], weight.clamp(min=0)) + ctx.run(parts[1], weight.clamp(max=0))
            slopes = torch.autograd.grad(whole, parts, safe(relevance, whole.detach()))
        found = sum(part.detach() * slope for part, slope in zip(parts, slopes, strict=True))
        return None, found, None, None  # type: ignore[return-value]


def by_weight(run: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a map that is linear in ``x`` and in ``weight``, with its rule."""
    weight = weight.detach()
    shift = () if bias is None else (bias.detach(),)
    return _Weighted.apply(run(x.detach(), weight, *shift), x, weight, run)


class Halves(torch.autograd.Function):
    """A product of two tensors, such as a gate: half of the relevance to each."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, left: Tensor, right: Tensor) -> Tensor:  # type: ignore[override]  # noqa: ARG004
        """Compute the value."""
        return output.clone()

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[None, Tensor, Tensor]:  # type: ignore[override]  # noqa: ARG004
        """Hand on relevance."""
        return None, relevance / 2, relevance / 2


class Sum(torch.autograd.Function):
    """A sum of two tensors: in proportion, then both parts rescaled by their totals, item by item."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, left: Tensor, right: Tensor) -> Tensor:  # type: ignore[override]
        """Compute the value."""
        ctx.save_for_backward(output, left, right)
        return output.clone()

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[None, Tensor, Tensor]:  # type: ignore[override]
        """Hand on relevance."""
        output, left, right = ctx.saved_tensors
        share = safe(relevance, output)
        parts = left * share, right * share
        sums = [_total(one) for one in parts]
        both = sums[0].abs() + sums[1].abs()
        total = _total(relevance)
        scaled = [one * safe(safe(s.abs(), both) * total, s) for one, s in zip(parts, sums, strict=True)]
        return None, scaled[0], scaled[1]


class Share(torch.autograd.Function):
    """A sum with a constant: its share of the sum."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, given: Tensor) -> Tensor:  # type: ignore[override]
        """Compute the value."""
        ctx.save_for_backward(output, given)
        return output.clone()

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[None, Tensor]:  # type: ignore[override]
        """Hand on relevance."""
        output, given = ctx.saved_tensors
        return None, (given * safe(relevance, output)).sum_to_size(given.shape)


class Product(torch.autograd.Function):
    """A matrix product of two tensors: half of the relevance to each, in proportion."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, keep: Keep | None) -> Tensor:  # type: ignore[override]
        """Compute the value."""
        output = left @ right
        ctx.save_for_backward(left, right, output)
        ctx.keep = keep
        return output

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        """Hand on relevance."""
        left, right, output = ctx.saved_tensors
        share = safe(relevance, output)
        to_left = left * (share @ right.transpose(-1, -2)) / 2
        to_right = right * (left.transpose(-1, -2) @ share) / 2
        if ctx.keep is not None:
            ctx.keep(left, to_left)
        return to_left, to_right, None


class Scaled(torch.autograd.Function):
    """The same value; what comes back is multiplied by a tensor."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, factor: Tensor) -> Tensor:  # type: ignore[override]
        """Compute the value."""
        ctx.save_for_backward(factor)
        return given.view_as(given)

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """Hand on relevance."""
        return relevance * ctx.saved_tensors[0], None


def safe(part: Tensor, whole: Tensor) -> Tensor:
    """Divide as the published code does: the denominator shifted by 1e-9, 0 where it is 0."""
    below = whole + _EPS
    below = torch.where(below == 0, _EPS, below)
    return torch.where(whole == 0, 0.0, part / below)


def _total(one: Tensor) -> Tensor:
    """Sum each item of the batch."""
    return one.flatten(1).sum(dim=1).reshape(-1, *[1] * (one.dim() - 1))
