r"""Relevance propagation of Chefer et al. (CVPR 2021): each rule passes relevance, not gradients.

Every function of the model is replaced by one that computes the same value and whose backward pass
hands *relevance* to its inputs, so that one backward pass from the target propagates relevance.

.. math::
    \text{linear: } R_j = \sum_i \frac{x_j^+ w_{ij}^+ + x_j^- w_{ij}^-}{\sum_k \ldots} R_i, \qquad
    A V: \tfrac12 \text{ each}, \qquad
    a + b: R\,\tfrac{a}{a+b},\ \text{rescaled to}\ \tfrac{|\Sigma a|}{|\Sigma a| + |\Sigma b|}\Sigma R
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from attnlib.errors import CaptureError
from attnlib.methods.lrp_rules import ELEMENTWISE, constant, flat, tripwired

__all__ = ["RelevanceRules"]

_EPS = 1e-9
Keep = Callable[[Tensor, Tensor], None]
_MOVES = frozenset(
    (
        "alpha_dropout", "chunk", "clone", "concat", "contiguous", "detach", "double", "dropout", "expand",
        "feature_dropout", "flatten", "float", "gather", "get", "getitem", "index_select", "movedim",
        "narrow", "permute", "requires_grad", "reshape", "select", "split", "squeeze", "stack", "swapaxes",
        "to", "transpose", "type", "type_as", "unbind", "unflatten", "unsqueeze", "view", "view_as", "cat",
    )
)  # fmt: skip
_PASS = frozenset(("layer_norm", "rms_norm", "softmax", "relu", *ELEMENTWISE))


class RelevanceRules:
    """The rules, for one run of a model.

    Parameters
    ----------
    keep : called in the backward pass, last attention call first, with the weights of an attention call
        and their relevance.
    """

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._readers: Any = WeakIdKeyDictionary()
        self._probabilities: Any = WeakIdKeyDictionary()

    def __call__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of a torch function with the rule of its kind.

        Raises
        ------
        CaptureError
            In the backward pass, if relevance has to go through a function that has no rule.
        """
        moving = [one for one in flat((args, kwargs)) if one.requires_grad]
        if not moving or not torch.is_grad_enabled():
            return NotImplemented
        name = (getattr(func, "__name__", "") or "unknown").strip("_")
        if name in _MOVES:
            out = func(*args, **kwargs)
            self._inherit(name, moving, out)
            return out
        for one in moving:
            self._count(one)
        if name in _PASS:
            out = _Pass.apply(func(*constant(args), **constant(kwargs)), moving[0])
            if name == "softmax":
                self._probabilities[out] = True
            return out
        rule = getattr(self, f"_{_RULE_OF[name]}", None) if name in _RULE_OF else None
        if rule is not None:
            return rule(func, args, kwargs, moving)
        return tripwired(func(*constant(args), **constant(kwargs)), moving, name)

    def activation(self, given: Tensor, output: Tensor) -> Tensor:
        """Pass relevance through an element-wise activation."""
        return _Pass.apply(output.detach(), given) if given.requires_grad else output

    def _count(self, tensor: Tensor) -> None:
        readers = self._readers.setdefault(tensor, [0])
        readers[0] += 1

    def _inherit(self, name: str, moving: list[Tensor], out: Any) -> None:
        """Count a tensor that was only passed on as the same one."""
        if isinstance(out, Tensor) and len(moving) == 1 and out.shape == moving[0].shape:
            self._readers[out] = self._readers.setdefault(moving[0], [0])
        same = name in ("dropout", "to", "contiguous", "type_as", "clone", "float")
        if same and isinstance(out, Tensor) and moving[0] in self._probabilities:
            self._probabilities[out] = True

    def _made(self, out: Tensor) -> Tensor:
        """Let the relevance of a tensor that is read several times go through the rule for copies."""
        readers = [0]
        copied = _Copied.apply(out, readers)
        self._readers[copied] = readers
        return copied

    def _linear(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:
        given = {**dict(zip(("input", "weight", "bias"), args, strict=False)), **kwargs}
        return _Linear.apply(func(*constant(args), **constant(kwargs)), moving[0], given["weight"])

    def _addmm(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:
        return _Linear.apply(func(*constant(args), **constant(kwargs)), moving[0], args[2].T)

    def _add(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:
        out = func(*constant(args), **constant(kwargs))
        terms = [one for one in args[:2] if isinstance(one, Tensor)]
        if len(moving) == 2 and terms[0].shape == terms[1].shape:
            return self._made(_Sum.apply(out, terms[0], terms[1]))
        return self._made(_Share.apply(out, moving[0]))

    def _mul(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:
        if len(moving) == 1 and moving[0].shape == func(*constant(args), **constant(kwargs)).shape:
            return _Pass.apply(func(*constant(args), **constant(kwargs)), moving[0])
        return tripwired(func(*constant(args), **constant(kwargs)), moving, "mul")

    def _mean(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:
        """Divide relevance among what is averaged, in proportion."""
        x = moving[0]
        out = func(x, *args[1:], **kwargs)
        ratio = _safe(torch.ones_like(out.detach()), out.detach())
        return _Scaled.apply(func(_Scaled.apply(x, x.detach()), *args[1:], **kwargs), ratio)

    def _matmul(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:
        left, right = args[:2]
        if len(moving) < 2:
            return tripwired(func(*constant(args), **kwargs), moving, "matmul with a constant")
        keep = self._keep if left in self._probabilities else None
        return _Product.apply(left, right, keep)

    def _scaled_dot_product_attention(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:  # noqa: ARG002
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        query, key, value = given["query"], given["key"], given["value"]
        if key.shape[1] != query.shape[1]:
            raise CaptureError("transformer_attribution has no rule for grouped queries")
        scale = given.get("scale")
        scores = _Product.apply(query, key.transpose(-1, -2), None)
        weights = _weights(
            scores.detach() * (query.shape[-1] ** -0.5 if scale is None else scale),
            given.get("attn_mask"),
            causal=bool(given.get("is_causal")),
        )
        return _Product.apply(_Pass.apply(weights, scores), value, self._keep)


_RULE_OF = {
    "linear": "linear",
    "addmm": "addmm",
    "add": "add",
    "mul": "mul",
    "div": "mul",
    "mean": "mean",
    "matmul": "matmul",
    "bmm": "matmul",
    "scaled_dot_product_attention": "scaled_dot_product_attention",
}


class _Pass(torch.autograd.Function):
    """Another value; relevance passes unchanged."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, given: Tensor) -> Tensor:  # type: ignore[override]  # noqa: ARG004
        return output.clone()

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[None, Tensor]:  # type: ignore[override]  # noqa: ARG004
        return None, relevance


class _Copied(torch.autograd.Function):
    """The same value; the rule for copies if several functions read it."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, readers: list[int]) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(output)
        ctx.readers = readers
        return output.clone()

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return (x * _safe(relevance, x) if ctx.readers[0] > 1 else relevance), None


class _Linear(torch.autograd.Function):
    """A linear map: only positive products carry relevance; the bias takes none."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, x: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        return output.clone()

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[None, Tensor, None]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        above, below = x.clamp(min=0), x.clamp(max=0)
        positive, negative = weight.clamp(min=0), weight.clamp(max=0)
        share = _safe(relevance, above @ positive.T + below @ negative.T)
        return None, above * (share @ positive) + below * (share @ negative), None


class _Sum(torch.autograd.Function):
    """A sum of two tensors: in proportion, then both parts rescaled by their totals, item by item."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, left: Tensor, right: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(output, left, right)
        return output.clone()

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[None, Tensor, Tensor]:  # type: ignore[override]
        output, left, right = ctx.saved_tensors
        share = _safe(relevance, output)
        parts = left * share, right * share
        sums = [_total(one) for one in parts]
        both = sums[0].abs() + sums[1].abs()
        total = _total(relevance)
        scaled = [one * _safe(_safe(s.abs(), both) * total, s) for one, s in zip(parts, sums, strict=True)]
        return None, scaled[0], scaled[1]


class _Share(torch.autograd.Function):
    """A sum with a constant: its share of the sum."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, given: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(output, given)
        return output.clone()

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[None, Tensor]:  # type: ignore[override]
        output, given = ctx.saved_tensors
        return None, (given * _safe(relevance, output)).sum_to_size(given.shape)


class _Product(torch.autograd.Function):
    """A matrix product of two tensors: half of the relevance to each, in proportion."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, keep: Keep | None) -> Tensor:  # type: ignore[override]
        output = left @ right
        ctx.save_for_backward(left, right, output)
        ctx.keep = keep
        return output

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        left, right, output = ctx.saved_tensors
        share = _safe(relevance, output)
        to_left = left * (share @ right.transpose(-1, -2)) / 2
        to_right = right * (left.transpose(-1, -2) @ share) / 2
        if ctx.keep is not None:
            ctx.keep(left, to_left)
        return to_left, to_right, None


class _Scaled(torch.autograd.Function):
    """The same value; what comes back is multiplied by a tensor."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, factor: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(factor)
        return given.view_as(given)

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return relevance * ctx.saved_tensors[0], None


def _safe(part: Tensor, whole: Tensor) -> Tensor:
    """Divide as the published code does: the denominator shifted by 1e-9, 0 where it is 0."""
    below = whole + _EPS
    below = torch.where(below == 0, _EPS, below)
    return torch.where(whole == 0, 0.0, part / below)


def _total(one: Tensor) -> Tensor:
    """Sum each item of the batch."""
    return one.flatten(1).sum(dim=1).reshape(-1, *[1] * (one.dim() - 1))


def _weights(scores: Tensor, mask: Tensor | None, *, causal: bool) -> Tensor:
    if causal:
        ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(ahead, -torch.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return torch.nan_to_num(scores.softmax(dim=-1))
