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

from attnlib.methods.torch_calls import attention_of_parts, constant, flat, name_of, named, tripwired

__all__ = ["ELEMENTWISE", "INTO_CONSTANTS", "LENGTHS", "LINEAR", "PRODUCTS", "Rules"]

LINEAR = frozenset(  # or linear piece by piece: input x gradient is their rule
    (
        "adaptive_avg_pool1d", "adaptive_avg_pool2d", "add", "addmm", "adjoint", "alpha_dropout", "amax",
        "avg_pool1d", "avg_pool2d", "bfloat16", "broadcast_to", "cat", "chunk", "clone", "concat",
        "contiguous", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
        "conv_transpose3d", "cumsum", "detach", "diagonal", "double", "dropout",
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
PRODUCTS = frozenset(("baddbmm", "bmm", "einsum", "matmul", "mm", "mv", "rmatmul"))
ELEMENTWISE = frozenset(
    (
        "celu", "elu", "erf", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "logsigmoid",
        "mish", "relu6", "selu", "sigmoid", "silu", "softplus", "softsign", "tanh", "tanhshrink",
    )
)  # fmt: skip
STABILISER = 1e-10  # of the published code; it moves f(x) / x away from 0 / 0
LENGTHS = frozenset(("linalg_norm", "linalg_vector_norm", "norm"))  # input x gradient adds up to a length
INTO_CONSTANTS = frozenset(("reciprocal", "rsqrt"))


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
        """Return the result of a torch function by its rule, or NotImplemented where its gradient is right.

        Raises
        ------
        CaptureError
            In the backward pass, if relevance has to go through a function that has no rule.
        """
        moving = [one for one in flat((args, kwargs)) if one.requires_grad]
        if not moving or not torch.is_grad_enabled():
            return NotImplemented
        name = name_of(func)
        if name in PRODUCTS:
            return _halved(func(*args, **kwargs)) if len(moving) > 1 else NotImplemented
        if name in ELEMENTWISE:
            return self.activation(args[0], func(args[0].detach(), *args[1:], **kwargs))
        if name in INTO_CONSTANTS:
            return func(*constant(args), **kwargs)
        if name in _RULE_OF:
            return getattr(self, _RULE_OF[name])(func, args, kwargs, moving)
        if name in LINEAR or name in LENGTHS:
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

        def attention(*parts: Any) -> Tensor:
            own = functional.scaled_dot_product_attention
            return self._scaled_dot_product_attention(own, parts, {}, moving)

        made = attention_of_parts(args, kwargs, functional.linear, attention)
        if made is None:
            return tripwired(func(*constant(args), **constant(kwargs)), moving, func.__name__)
        return made, None

    def _normalize(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:  # noqa: ARG002
        """Hold the length constant: it normalises."""
        given = named(("input", "p", "dim", "eps"), args, kwargs)
        x = given["input"]
        length = torch.linalg.vector_norm(x.detach(), given.get("p", 2.0), given.get("dim", 1), keepdim=True)
        return x / length.clamp(min=given.get("eps", 1e-12))

    def _batch_norm(self, func: Any, args: Any, kwargs: Any, moving: list[Tensor]) -> Any:
        """Leave it as it is with stored statistics: then it is linear."""
        words = ("input", "running_mean", "running_var", "weight", "bias", "training")
        if not named(words, args, kwargs).get("training"):
            return NotImplemented
        return tripwired(func(*constant(args), **constant(kwargs)), moving, "batch_norm of a batch")


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
    "normalize": "_normalize",
    "batch_norm": "_batch_norm",
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


def _halved(out: Tensor) -> Tensor:
    return _divided(out, 2.0)


def _divided(given: Tensor, factor: float) -> Tensor:
    return _Scaled.apply(given, factor) if given.requires_grad else given


def _affine(x: Tensor, given: dict[str, Any]) -> Tensor:
    weight, bias = given.get("weight"), given.get("bias")
    x = x if weight is None else x * weight
    return x if bias is None else x + bias
