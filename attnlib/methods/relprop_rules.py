r"""Relevance propagation of Chefer et al. (CVPR 2021): each rule passes relevance, not gradients.

Every function of the model is replaced by one that computes the same value and whose backward pass
hands *relevance* to its inputs, so that one backward pass from the target propagates relevance.

.. math::
    \text{linear: } R_j = \sum_i \frac{x_j^+ w_{ij}^+ + x_j^- w_{ij}^-}{\sum_k \ldots} R_i, \qquad
    A V: \tfrac12 \text{ each}, \qquad
    a + b: R\,\tfrac{a}{a+b},\ \text{rescaled to}\ \tfrac{|\Sigma a|}{|\Sigma a| + |\Sigma b|}\Sigma R
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.weak import WeakIdKeyDictionary

from attnlib.methods.lrp_rules import ELEMENTWISE, INTO_CONSTANTS, LENGTHS
from attnlib.methods.relprop_functions import (
    Copied,
    Halves,
    Keep,
    Pass,
    Product,
    Scaled,
    Share,
    Sum,
    by_weight,
    safe,
)
from attnlib.methods.torch_calls import (
    attention_of_parts,
    constant,
    flat,
    name_of,
    named,
    out_of_place,
    tripwired,
)

__all__ = ["RelevanceRules"]

_MOVES = frozenset(
    (
        "adjoint", "alpha_dropout", "broadcast_to", "cat", "chunk", "clone", "concat", "contiguous", "detach",
        "diagonal", "double", "dropout", "expand", "expand_as", "feature_dropout", "flatten", "flip", "float",
        "gather", "get", "getitem", "hstack", "index_select", "masked_fill", "movedim", "narrow", "pad",
        "permute", "pixel_shuffle", "pixel_unshuffle", "repeat", "repeat_interleave", "requires_grad",
        "reshape", "reshape_as", "roll", "select", "split", "squeeze", "stack", "swapaxes", "swapdims", "t",
        "take_along_dim", "tensor_split", "tile", "to", "transpose", "type", "type_as", "unbind", "unflatten",
        "unfold", "unsqueeze", "view", "view_as", "vstack",
    )
)  # fmt: skip
_PASS = frozenset(
    ("layer_norm", "rms_norm", "softmax", "relu", "neg", "normalize", "batch_norm", *ELEMENTWISE)
)
_PROPORTIONAL = (
    "mean",
    "sum",
    "interpolate",
    "upsample",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "avg_pool2d",
)


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
        self.beginning: Tensor | None = None

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
        name, func = name_of(func), out_of_place(func)
        if name in INTO_CONSTANTS:
            return func(*constant(args), **constant(kwargs))
        if name in _MOVES:
            out = func(*args, **kwargs)
            self._inherit(name, moving, out)
            return out
        for one in () if name in LENGTHS else moving:  # a length is read to divide by, or is the score itself
            self._count(one)
        if name in _PASS:
            out = Pass.apply(func(*constant(args), **constant(kwargs)), moving[0])
            if name == "softmax":
                self._probabilities[out] = True
            return out
        rule = getattr(self, f"_{_RULE_OF[name]}", None) if name in _RULE_OF else None
        if rule is not None:
            return rule(func, args, kwargs, moving)
        return tripwired(func(*constant(args), **constant(kwargs)), moving, name)

    def activation(self, given: Tensor, output: Tensor) -> Tensor:
        """Pass relevance through an element-wise activation."""
        return Pass.apply(output.detach(), given) if given.requires_grad else output

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
        copied = Copied.apply(out, readers)
        self._readers[copied] = readers
        return copied

    def _linear(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:  # noqa: ARG002
        given = named(("input", "weight", "bias"), args, kwargs)
        return by_weight(func, given["input"], given["weight"], given.get("bias"))

    def _addmm(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:
        if args[1] not in moving or len(moving) > 1 or kwargs:
            return tripwired(func(*constant(args), **constant(kwargs)), moving, "addmm")
        return by_weight(functional.linear, args[1], args[2].T, args[0])

    def _convolution(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:
        """Treat a convolution as the linear map it is."""
        given = named(("input", "weight", "bias"), args[:3], kwargs)
        rest = {key: value for key, value in given.items() if key not in ("input", "weight", "bias")}
        if self.beginning is None and given["input"].is_leaf:  # the pixels: relevance ends at the patches
            self.beginning = func(*constant(args), **constant(kwargs)).requires_grad_()
            return self.beginning
        if any(given["weight"] is one for one in moving):
            return tripwired(func(*constant(args), **constant(kwargs)), moving, func.__name__)

        def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            return func(x, weight, bias, *args[3:], **rest)

        return by_weight(run, given["input"], given["weight"], given.get("bias"))

    def _add(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:
        out = func(*constant(args), **constant(kwargs))
        if kwargs:
            return tripwired(out, moving, "add with alpha")
        terms = [one for one in args[:2] if isinstance(one, Tensor)]
        if len(moving) == 2 and len(terms) == 2:
            left, right = (one.expand(out.shape) for one in terms)
            return self._made(Sum.apply(out, left, right))
        return self._made(Share.apply(out, moving[0]))

    def _sub(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:
        right = args[1]
        if isinstance(right, Tensor) and right.requires_grad:
            right = Pass.apply(-right.detach(), right)
        else:
            right = -right
        if kwargs:
            return tripwired(func(*constant(args), **constant(kwargs)), moving, "sub with alpha")
        return self._add(torch.add, (args[0], right), {}, moving)

    def _mul(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:
        out = func(*constant(args), **constant(kwargs))
        if len(moving) == 1:
            return Pass.apply(out, moving[0].expand(out.shape))
        return Halves.apply(out, *(one.expand(out.shape) for one in args[:2]))

    def _div(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:
        """Hold the denominator constant: it normalises."""
        out = func(*constant(args), **constant(kwargs))
        if not (isinstance(args[0], Tensor) and args[0].requires_grad):
            return tripwired(out, moving, "div")
        return Pass.apply(out, args[0].expand(out.shape))

    def _proportional(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:
        """Divide relevance among what is averaged or summed (or the squares in a length), in proportion."""
        x = moving[0]
        out = func(x, *args[1:], **kwargs)
        ratio = safe(torch.ones_like(out.detach()), out.detach())
        return Scaled.apply(func(Scaled.apply(x, x.detach()), *args[1:], **kwargs), ratio)

    def _matmul(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:
        left, right = args[:2]
        if len(moving) == 1 and not kwargs:
            first = left is moving[0]
            return by_weight(
                (lambda x, w: x @ w) if first else (lambda x, w: w @ x), moving[0], right if first else left
            )
        if kwargs:
            return tripwired(func(*constant(args), **constant(kwargs)), moving, "matmul")
        keep = self._keep if left in self._probabilities else None
        return Product.apply(left, right, keep)

    def _multi_head_attention(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:
        """Run the whole of torch's multi-head attention by the rules of its parts."""

        def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return by_weight(functional.linear, x, weight, bias)

        made = attention_of_parts(args, kwargs, linear, self._attention)
        if made is None:
            return tripwired(func(*constant(args), **constant(kwargs)), moving, func.__name__)
        return made, None

    def _scaled_dot_product_attention(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:  # noqa: ARG002
        words = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale")
        given = named(words, args, kwargs)
        return self._attention(
            given["query"],
            given["key"],
            given["value"],
            given.get("attn_mask"),
            causal=bool(given.get("is_causal")),
            scale=given.get("scale"),
        )

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None = None,
        *,
        causal: bool = False,
        scale: float | None = None,
    ) -> Tensor:
        groups = query.shape[1] // key.shape[1]
        if groups > 1:  # the queries of a group share keys and values: their relevance adds up
            key, value = (one.repeat_interleave(groups, dim=1) for one in (key, value))
        scores = Product.apply(query, key.transpose(-1, -2), None)
        weights = _weights(
            scores.detach() * (query.shape[-1] ** -0.5 if scale is None else scale), mask, causal=causal
        )
        return Product.apply(Pass.apply(weights, scores), value, self._keep)


_RULE_OF = {
    "linear": "linear",
    "addmm": "addmm",
    "conv1d": "convolution",
    "conv2d": "convolution",
    "conv_transpose2d": "convolution",
    "add": "add",
    "sub": "sub",
    "mul": "mul",
    "multiply": "mul",
    "div": "div",
    "divide": "div",
    "matmul": "matmul",
    "bmm": "matmul",
    "multi_head_attention_forward": "multi_head_attention",
    "scaled_dot_product_attention": "scaled_dot_product_attention",
    **dict.fromkeys((*_PROPORTIONAL, *LENGTHS), "proportional"),
}


def _weights(scores: Tensor, mask: Tensor | None, *, causal: bool) -> Tensor:
    if causal:
        ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(ahead, -torch.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return torch.nan_to_num(scores.softmax(dim=-1))
