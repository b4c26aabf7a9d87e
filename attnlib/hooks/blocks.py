"""Hooks on the blocks of a model while it runs: norms are heard in passing, and a pass can be stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

__all__ = ["block_of", "norms_of_blocks", "stoppable"]


@contextmanager
def stoppable(model: nn.Module, check: Callable[[], None]) -> Iterator[None]:
    """Call ``check`` before every block of a model, so that a forward pass can be stopped between them.

    Blocks are the members of its lists of modules. All hooks are gone afterwards.
    """
    blocks = [one for parts in model.modules() if isinstance(parts, nn.ModuleList) for one in parts]
    handles = [one.register_forward_pre_hook(lambda *_: check()) for one in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def norms_of_blocks(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Keep the norm of every token after each block, of the first pass that runs inside.

    Blocks are the members of the model's lists of modules. All hooks are gone afterwards.

    Yields
    ------
    Path of the block -> norms, [batch, token].
    """
    norms: dict[str, Tensor] = {}

    def keep(path: str) -> Callable[..., None]:
        def hear(_module: nn.Module, _inputs: Any, output: Any) -> None:
            states = output[0] if isinstance(output, tuple) and output else output
            if path not in norms and isinstance(states, Tensor) and states.dim() == 3:
                norms[path] = states.detach().float().norm(dim=-1).cpu()

        return hear

    handles = [
        block.register_forward_hook(keep(f"{path}.{name}" if path else name))
        for path, parts in model.named_modules()
        if isinstance(parts, nn.ModuleList)
        for name, block in parts.named_children()
    ]
    try:
        yield norms
    finally:
        for handle in handles:
            handle.remove()


def block_of(model: nn.Module, attention: str, norms: Mapping[str, Tensor]) -> str | None:
    """Return the block whose attention has this path, or None where no norms were heard.

    A list may hold bare attention layers, whose output is no hidden state: a block has at least as many
    weights beside its attention as inside.
    """
    around = [path for path in norms if attention.startswith(f"{path}.")]
    if not around:
        return None
    path = max(around, key=len)
    try:
        inside, whole = model.get_submodule(attention), model.get_submodule(path)
    except AttributeError:  # several calls of one module carry a number behind its path
        return None
    return path if _weights(whole) >= 2 * _weights(inside) else None


def _weights(module: nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())
