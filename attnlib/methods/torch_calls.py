"""Calls of torch functions, as rules of relevance meet them: names, arguments, what has no rule."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from attnlib.errors import CaptureError

__all__ = [
    "attention_of_parts",
    "constant",
    "flat",
    "name_of",
    "named",
    "out_of_place",
    "tripwired",
]

_RARE = ("bias_k", "bias_v", "add_zero_attn", "key_padding_mask", "static_k", "static_v", "is_causal")
_MULTI_HEAD = (
    "query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias", "bias_k",
    "bias_v", "add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias", "training",
    "key_padding_mask", "need_weights", "attn_mask", "use_separate_proj_weight", "q_proj_weight",
    "k_proj_weight", "v_proj_weight", "static_k", "static_v", "average_attn_weights", "is_causal",
)  # fmt: skip


_OPERATORS = {"radd": "add", "rmul": "mul", "truediv": "div"}


def name_of(func: Any) -> str:
    """Return the name of a torch function: ``x + y``, ``1 + x``, ``x += y`` and ``x.add_(y)`` are all add."""
    name = (getattr(func, "__name__", "") or "unknown").strip("_")
    return _OPERATORS.get(name, name)


def out_of_place(func: Any) -> Callable[..., Any]:
    """Return the function that computes the same and changes none of its arguments."""
    own = getattr(func, "__name__", "") or "unknown"
    changes = own.endswith("_") and not own.endswith("__")
    return getattr(Tensor, own.strip("_"), func) if changes else func


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
        raise CaptureError(
            f"relevance has to go through {ctx.name}, for which there is no rule; generic_relevance, "
            "integrated_gradients and gradient_x_input need none"
        )


def tripwired(out: Any, moving: list[Tensor], name: str) -> Any:
    """Let a result pass forward, and refuse relevance that comes back to it, by the name of its function."""
    name = name if "'" in name else f"{name!r}{_place()}"
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


def _place() -> str:
    """Say in which module the model is, by the frames of its code."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module):
            return f" in {type(owner).__name__}"
        frame = frame.f_back
    return ""


def attention_of_parts(
    args: Any, kwargs: Any, linear: Callable[..., Tensor], attention: Callable[..., Tensor]
) -> Tensor | None:
    """Compute torch's whole multi-head attention from its parts; None if it is of a rare kind.

    Parameters
    ----------
    args, kwargs : of ``multi_head_attention_forward``.
    linear : (input, weight, bias) -> a linear map.
    attention : (query, key, value, mask) -> scaled dot-product attention.
    """
    given = named(_MULTI_HEAD, args, kwargs)
    plain = given["query"].dim() == 3 and given["in_proj_weight"] is not None
    if not plain or any(given.get(word) is not None and given[word] is not False for word in _RARE):
        return None
    packed: Any = given["in_proj_weight"]
    bias: Any = given["in_proj_bias"]
    weights, biases = packed.chunk(3), (None,) * 3 if bias is None else bias.chunk(3)
    parts = [
        linear(given[word], weight, shift).unflatten(-1, (given["num_heads"], -1)).permute(1, 2, 0, 3)
        for word, weight, shift in zip(("query", "key", "value"), weights, biases, strict=True)
    ]
    merged = attention(*parts, given.get("attn_mask")).permute(2, 0, 1, 3).flatten(2)
    return linear(merged, given["out_proj_weight"], given["out_proj_bias"])
