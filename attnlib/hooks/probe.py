"""Which final tokens the output depends on, found by a gradient through the model's tail only."""

from __future__ import annotations

import threading
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from attnlib.errors import CaptureError
from attnlib.hooks.reading import outputs_of

__all__ = ["known_readout", "probe_readout"]


_KNOWN: WeakKeyDictionary[nn.Module, tuple[tuple[Any, ...], dict[tuple[str, int], list[int]]]] = (
    WeakKeyDictionary()
)


def known_readout(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], last_layer: str, num_tokens: int
) -> list[int]:
    """Return :func:`probe_readout`, asked once for each model and number of tokens.

    What was found is forgotten when a module or a parameter of the model was replaced or changed.
    """
    parts = (
        *(id(one) for one in model.modules()),
        *((id(one), one._version) for one in model.parameters() if not one.is_inference()),
        repr(getattr(model, "config", None)),
    )
    before, found = _KNOWN.get(model, ((), {}))
    if before != parts:
        found = {}
        _KNOWN[model] = parts, found
    key = last_layer, num_tokens
    if key not in found:
        found[key] = probe_readout(model, args, kwargs, last_layer, num_tokens)
    return found[key]


def probe_readout(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], last_layer: str, num_tokens: int
) -> list[int]:
    """Run the model once more and return the tokens after its last attention that the output depends on.

    The gradient starts behind the last attention call, where tokens no longer mix, so it costs a
    forward pass and a short way back.

    Parameters
    ----------
    model : the module.
    args, kwargs : its inputs.
    last_layer : path of the module that makes the last attention call.
    num_tokens : tokens per item.

    Raises
    ------
    CaptureError
        If the output does not depend on that module, or tokens cannot be told apart there.
    """
    leaves: list[Tensor] = []
    thread = threading.get_ident()

    def cut(_module: nn.Module, _args: Any, output: Any) -> Any:
        if threading.get_ident() != thread:
            return None
        first = output[0] if isinstance(output, tuple | list) else output
        if not isinstance(first, Tensor) or not first.is_floating_point():
            return None
        torch.set_grad_enabled(True)
        leaf = first.detach().requires_grad_()
        leaves[:] = [leaf]
        return (leaf, *output[1:]) if isinstance(output, tuple | list) else leaf

    handle = model.get_submodule(last_layer).register_forward_hook(cut)
    before = torch.is_grad_enabled()
    try:
        torch.set_grad_enabled(False)
        output = model(*args, **kwargs)
        found = [one for _, one in outputs_of(output) if one.requires_grad]
        if not leaves or not found:
            raise CaptureError(
                f"the output does not depend on {last_layer}: what the head reads is not known"
            )
        noise = torch.randn(found[0].shape, generator=torch.Generator().manual_seed(0)).to(found[0])
        (gradient,) = torch.autograd.grad((found[0] * noise).sum(), leaves, allow_unused=True)
    finally:
        torch.set_grad_enabled(before)
        handle.remove()
    if gradient is None:
        raise CaptureError(f"the output does not depend on {last_layer}: what the head reads is not known")
    axes = [axis for axis in range(gradient.dim()) if gradient.shape[axis] == num_tokens]
    if not axes:
        raise CaptureError(f"the output of {last_layer} has no axis of {num_tokens} tokens")
    others = [axis for axis in range(gradient.dim()) if axis != axes[0]]
    strength = gradient.abs().amax(dim=others) if others else gradient.abs()
    return [int(i) for i in (strength > 0).nonzero().flatten()]
