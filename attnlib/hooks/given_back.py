"""Take away again what a library registers on a model when it is asked for more than its plain output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["hooks_given_back"]

_LIBRARY = "transformers."
_MARK = "_output_capturing_hooks_installed"  # of transformers: hooks for hidden states, put in once for good


@contextmanager
def hooks_given_back(model: nn.Module) -> Iterator[None]:
    """Leave no hook on a model that its own library registers during the block.

    The first forward pass of a transformers model with ``output_hidden_states=True`` puts a hook on each of
    its blocks and leaves it there. A model that had them before keeps them; hooks of anybody else stay, too.

    Parameters
    ----------
    model : the module that runs inside the block.
    """
    modules = list(model.modules())
    before = [(set(one._forward_hooks), _MARK in vars(one)) for one in modules]
    try:
        yield
    finally:
        for one, (hooks, marked) in zip(modules, before, strict=True):
            for name in set(one._forward_hooks) - hooks:
                if _LIBRARY in (getattr(one._forward_hooks[name], "__module__", None) or ""):
                    del one._forward_hooks[name]
            if not marked:
                vars(one).pop(_MARK, None)
