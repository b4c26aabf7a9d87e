"""Where in the model the forward pass is: the path of modules that are running."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

__all__ = ["Frame", "Trail"]


@dataclass(frozen=True, eq=False)
class Frame:
    """One running module: its path, itself and what it was called with."""

    name: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class Trail:
    """Follow the forward pass through the modules of a model, in the thread that made the trail.

    Hooks are registered by :meth:`enter` and removed by :meth:`leave`; other threads that run the
    same model meanwhile leave no trace.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._thread = threading.get_ident()
        self._handles: list[Any] = []
        self.frames: list[Frame] = []
        self.inputs: list[Frame] = []
        self.output: Any = None

    def enter(self) -> None:
        """Register the hooks; nothing is left behind if one of them cannot be."""
        try:
            for name, module in self._model.named_modules():
                self._follow(name, module)
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Remove every hook."""
        while self._handles:
            self._handles.pop().remove()
        self.frames.clear()

    def _follow(self, name: str, module: nn.Module) -> None:
        def before(this: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if threading.get_ident() == self._thread:
                frame = Frame(name, this, args, kwargs)
                if not self.frames:
                    self.inputs.append(frame)
                self.frames.append(frame)

        def after(this: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:  # noqa: ARG001
            if threading.get_ident() != self._thread:
                return
            while self.frames and self.frames.pop().module is not this:
                pass  # frames of modules whose own exit was skipped by an exception
            if not self.frames:
                self.output = output

        self._handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        self._handles.append(module.register_forward_hook(after, with_kwargs=True, always_call=True))
