r"""Rules of layer-wise relevance propagation in their gradient x input form.

Relevance is input x gradient when the backward pass is changed: a rule here takes the place of one
torch function and computes the same value with another gradient.

.. math:: R(x) = x \odot \nabla_x, \qquad
    f(x):\ \nabla_x = \frac{f(x)}{x}\,\nabla_f, \qquad
    A\,B:\ \nabla \to \tfrac12 \nabla, \qquad
    \text{norms}:\ \text{deviation held constant}
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.weak import WeakIdKeyDictionary

from attnlib.errors import CaptureError

__all__ = ["ELEMENTWISE", "LINEAR", "PRODUCTS", "Rules", "constant", "flat", "named", "tripwired"]

LINEAR = frozenset(
    (
        "adaptive_avg_pool1d", "adaptive_avg_pool2d", "add", "addmm", "adjoint", "alpha_dropout", "amax",
        "avg_pool1d", "avg_pool2d", "bfloat16", "broadcast_to", "cat", "chunk", "clone", "concat",
        "contiguous", "conv1d", "conv2d", "conv3d", "cumsum", "detach", "diagonal", "double", "dropout",
        "embedding", "expand", "expand_as", "feature_dropout", "flatten", "flip", "float", "fold", "gather",
        "get", "getitem", "half", "hstack", "index_select", "interpolate", "linear", "masked_fill",
        "masked_select", "max", "maximum", "mean", "movedim", "narrow", "neg", "pad", "permute",
        "pixel_shuffle", "pixel_unshuffle", "positive", "relu", "repeat", "repeat_interleave",
        "requires_grad", "reshape", "reshape_as", "roll", "rsub", "select", "split", "squeeze", "stack",
        "sub", "sum", "swapaxes", "swapdims", "t", "take_along_dim", "tensor_split", "tile", "to",
        "transpose", "tril", "triu", "type", "type_as", "unbind", "unflatten", "unfold", "unsqueeze",
        "upsample", "view", "view_as", "vstack", "where",
    )
)  # fmt: skip
PRODUCTS = frozenset(
    (
        "baddbmm", "bmm", "einsum", "matmul", "mm", "mv", "rmatmul",
    )
)  # fmt: skip
ELEMENTWISE = frozenset(
    (
        "celu", "elu", "erf", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "logsigmoid",
        "mish", "relu6", "selu", "sigmoid", "silu", "softplus", "softsign", "tanh", "tanhshrink",
    )
)  # fmt: skip
STABILISER = 1e-10  # of the published code; it moves f(x) / x away from 0 / 0
INTO_CONSTANTS = frozenset(("rsqrt",))


class Rules:
    """The rules of AttnLRP, or of CP-LRP, for one run of a model.

    Parameters
    ----------
    conservative : CP-LRP: attention weights and gates are constants.
    """

    def __init__(self, *, conservative: bool) -> None:
        self._conservative = conservative
        self._gates: Any = WeakIdKeyDictionary()

    def __call__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of a torch function by its rule, or NotImplemented where it is linear.

        Raises
        ------
        CaptureError
            In the backward pass, if relevance has to go through a function that has no rule.
        """
        moving = [one for one in flat((args, kwargs)) if one.requires_grad]
        if not moving or not torch.is_grad_enabled():
            return NotImplemented
        name = (getattr(func, "__name__", "") or "unknown").strip("_")
        if name in PRODUCTS:
            return _halved(func(*args, **kwargs)) if len(moving) > 1 else NotImplemented
        if name in ELEMENTWISE:
            return self.activation(args[0], func(args[0].detach(), *args[1:], **kwargs))
        if name in INTO_CONSTANTS:
            return func(*constant(args), **kwargs)
        if name in _RULE_OF:
            return getattr(self, _RULE_OF[name])(func, args, kwargs, moving)
        if name in LINEAR:
            return NotImplemented
        return tripwired(func(*constant(args), **constant(kwargs)), moving, name)

    def activation(self, given: Tensor, output: Tensor) -> Tensor:
        """Give the gradient f(x) / x to what an element-wise activation computed."""
        if not given.requires_grad:
            return output
        out = _Identity.apply(given, output.detach())
        self._gates[out] = True
        return out

    def _mul(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:
        if len(moving) < 2:
            return NotImplemented
        if self._conservative:
            gated = [one in self._gates for one in args[:2]]
            if any(gated):
                constant = [one.detach() if gate else one for one, gate in zip(args, gated, strict=False)]
                return func(*constant, **kwargs)
        return _halved(func(*args, **kwargs))

    def _div(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:  # noqa: ARG002
        """Hold the denominator constant: it normalises."""
        return func(args[0], *constant(args[1:]), **constant(kwargs))

    def _softmax(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:  # noqa: ARG002
        return func(*constant(args), **kwargs) if self._conservative else NotImplemented

    def _layer_norm(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:  # noqa: ARG002
        given = named(("input", "normalized_shape", "weight", "bias", "eps"), args, kwargs)
        x, shape = given["input"], given["normalized_shape"]
        axes = tuple(range(-len(shape), 0))
        centred = x - x.mean(dim=axes, keepdim=True)
        variance = centred.detach().square().mean(dim=axes, keepdim=True)
        return _affine(centred / (variance + given.get("eps", 1e-5)).sqrt(), given)

    def _rms_norm(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:  # noqa: ARG002
        given = named(("input", "normalized_shape", "weight", "eps"), args, kwargs)
        x = given["input"]
        axes = tuple(range(-len(given["normalized_shape"]), 0))
        eps = given.get("eps")
        eps = torch.finfo(x.dtype).eps if eps is None else eps
        return _affine(x * (x.detach().square().mean(dim=axes, keepdim=True) + eps).rsqrt(), given)

    def _scaled_dot_product_attention(
        self,
        func: Any,
        args: Any,
        kwargs: Any,
        moving: list[Tensor],  # noqa: ARG002
    ) -> Any:
        query, key, value, *rest = args
        if self._conservative:
            return func(query.detach(), key.detach(), value, *rest, **kwargs)
        return func(_divided(query, 4.0), _divided(key, 4.0), _divided(value, 2.0), *rest, **kwargs)

    def _multi_head_attention(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:
        """Run the whole of torch's multi-head attention by the rules of its parts."""
        given = named(_MULTI_HEAD, args, kwargs)
        plain = given["query"].dim() == 3 and given["in_proj_weight"] is not None
        rare = ("bias_k", "bias_v", "add_zero_attn", "key_padding_mask", "static_k", "static_v", "is_causal")
        if not plain or any(given.get(word) is not None and given[word] is not False for word in rare):
            return tripwired(func(*constant(args), **constant(kwargs)), moving, func.__name__)
        packed: Any = given["in_proj_weight"]
        bias: Any = given["in_proj_bias"]
        weights, biases = packed.chunk(3), (None,) * 3 if bias is None else bias.chunk(3)
        parts = [
            functional.linear(given[word], weight, shift)
            .unflatten(-1, (given["num_heads"], -1))
            .permute(1, 2, 0, 3)  # batch, head, token, dim
            for word, weight, shift in zip(("query", "key", "value"), weights, biases, strict=True)
        ]
        mixed = self._scaled_dot_product_attention(
            functional.scaled_dot_product_attention, (*parts, given.get("attn_mask")), {}, moving
        )
        merged = mixed.permute(2, 0, 1, 3).flatten(2)
        made = functional.linear(merged, given["out_proj_weight"], given["out_proj_bias"])
        return made, None


_MULTI_HEAD = (
    "query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias", "bias_k",
    "bias_v", "add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias", "training",
    "key_padding_mask", "need_weights", "attn_mask", "use_separate_proj_weight", "q_proj_weight",
    "k_proj_weight", "v_proj_weight", "static_k", "static_v", "average_attn_weights", "is_causal",
)  # fmt: skip
_RULE_OF = {
    "mul": "_mul",
    "multiply": "_mul",
    "div": "_div",
    "divide": "_div",
    "true_divide": "_div",
    "softmax": "_softmax",
    "layer_norm": "_layer_norm",
    "rms_norm": "_rms_norm",
    "scaled_dot_product_attention": "_scaled_dot_product_attention",
    "multi_head_attention_forward": "_multi_head_attention",
}


class _Identity(torch.autograd.Function):
    """Value of an activation, gradient f(x) / x."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, output: Tensor) -> Tensor:  # type: ignore[override]
        below = given + STABILISER
        ctx.save_for_backward(torch.where(below == 0, 0.0, output / torch.where(below == 0, 1.0, below)))
        return output.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (slope,) = ctx.saved_tensors
        return slope * gradient, None


class _Scaled(torch.autograd.Function):
    """The same value, the gradient divided."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, factor: float) -> Tensor:  # type: ignore[override]
        ctx.factor = factor
        return given.view_as(given)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient / ctx.factor, None


class _Tripwire(torch.autograd.Function):
    """The same value; relevance that comes back is refused by the name of the function."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, name: str, *moving: Tensor) -> Tensor:  # type: ignore[override]
        ctx.name, ctx.count = name, len(moving)
        return output.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        if not bool(gradient.any()):
            return (None, None, *([None] * ctx.count))
        raise CaptureError(f"relevance has to go through {ctx.name!r}, for which there is no rule")


def _halved(out: Tensor) -> Tensor:
    return _divided(out, 2.0)


def _divided(given: Tensor, factor: float) -> Tensor:
    return _Scaled.apply(given, factor) if given.requires_grad else given


def tripwired(out: Any, moving: list[Tensor], name: str) -> Any:
    """Let a result pass forward, and refuse relevance that comes back to it, by the name of its function."""
    if isinstance(out, Tensor):
        return _Tripwire.apply(out, name, *moving) if out.is_floating_point() else out
    if isinstance(out, tuple | list):
        return type(out)([tripwired(one, moving, name) for one in out]) if type(out) in (tuple, list) else out
    return out


def constant(values: Any) -> Any:
    """Return the same arguments, with every tensor detached."""
    if isinstance(values, Tensor):
        return values.detach()
    if isinstance(values, dict):
        return {key: constant(value) for key, value in values.items()}
    if type(values) in (tuple, list):
        return type(values)(constant(value) for value in values)
    return values


def flat(values: Any) -> list[Tensor]:
    """Return the tensors among nested arguments."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        return [one for value in values.values() for one in flat(value)]
    if isinstance(values, tuple | list):
        return [one for value in values for one in flat(value)]
    return []


def named(names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name."""
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _affine(x: Tensor, given: dict[str, Any]) -> Tensor:
    weight, bias = given.get("weight"), given.get("bias")
    x = x if weight is None else x * weight
    return x if bias is None else x + bias
