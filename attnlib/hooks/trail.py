"""Where in the model the forward pass is: the path of modules that are running."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["CACHES", "CROSS_INPUTS", "Frame", "Trail"]


CROSS_INPUTS = ("encoder_hidden_states", "key_value_states", "context", "memory")
CACHES = ("past_key_values", "past_key_value", "cache_params", "layer_past")
_SHARED = frozenset((*CROSS_INPUTS, *CACHES))
# leaves that make no attention call: following them one by one would cost more than they compute
_PLAIN = (nn.Linear, nn.LayerNorm, nn.Dropout, nn.Identity, nn.Embedding, nn.GELU, nn.ReLU, nn.SiLU)


@dataclass(eq=False)
class Frame:
    """One running module: its path, itself and what it was called with."""

    name: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    named: Mapping[str, Tensor] = field(default_factory=dict)  # of an outermost module: all its inputs
    other_keys: bool = field(init=False)  # called with a query, and something else for both keys and values

    def __post_init__(self) -> None:
        """Note what ``forget`` would take away."""
        given = dict(zip(("query", "key", "value"), self.args, strict=False)) | dict(self.kwargs)
        query, key, value = (given.get(word) for word in ("query", "key", "value"))
        tensors = isinstance(query, Tensor) and isinstance(key, Tensor)
        self.other_keys = tensors and key is value and key is not query

    def forget(self) -> None:
        """Let the hidden states go that the module was called with; what all layers share stays."""
        self.args, self.named = (), {}
        self.kwargs = {word: value for word, value in self.kwargs.items() if word in _SHARED}


class Trail:
    """Follow the forward pass through the modules of a model, in the thread that made the trail.

    Hooks are registered by :meth:`enter` and removed by :meth:`leave`; other threads that run the
    same model meanwhile leave no trace.

    Parameters
    ----------
    model : the module to follow.
    on_start, on_end : called when an outermost forward pass starts, and when it has ended.
    on_abort : called when one was left by an exception.
    """

    def __init__(
        self,
        model: nn.Module,
        on_start: Callable[[Frame], None],
        on_end: Callable[[Frame, Any], None],
        on_abort: Callable[[], None],
    ) -> None:
        self._model = model
        self._on_start = on_start
        self._on_end = on_end
        self._on_abort = on_abort
        self._raised: BaseException | None = None
        self._thread = threading.get_ident()
        self._handles: list[Any] = []
        self._leaves: dict[str, dict[str, nn.Module]] = {}
        self.frames: list[Frame] = []
        self.visited: dict[str, nn.Module] = {}

    @property
    def here(self) -> bool:
        """True in the thread that is followed, while a module runs."""
        return bool(self.frames) and self.own_thread

    @property
    def own_thread(self) -> bool:
        """True in the thread that is followed."""
        return threading.get_ident() == self._thread

    def enter(self) -> None:
        """Register the hooks; nothing is left behind if one of them cannot be."""
        try:
            for name, module in self._model.named_modules():
                if name and type(module) in _PLAIN:
                    self._leaves.setdefault(name.rpartition(".")[0], {})[name] = module
                else:
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
        # another thread that runs the model meanwhile may call these without keywords, while they are removed
        def before(this: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
            if threading.get_ident() == self._thread and not _goes_back():
                frame = Frame(name, this, args, kwargs or {})
                if name not in self.visited:
                    self.visited[name] = this
                    self.visited.update(self._leaves.get(name, {}))
                if any(one.module is this for one in self.frames) and not _runs_already(this):
                    self.frames.clear()  # an interrupt left the pass before, unseen by the hooks
                    self._on_abort()
                if not self.frames:
                    self._raised = sys.exception()
                    self._on_start(frame)
                self.frames.append(frame)

        def after(this: nn.Module, *given: Any) -> None:
            output = given[-1]
            elsewhere = threading.get_ident() != self._thread or _goes_back()
            if elsewhere or not any(f.module is this for f in self.frames):
                return
            frame = self.frames.pop()
            while frame.module is not this:  # modules that were left by an exception the model caught
                frame.forget()
                frame = self.frames.pop()
            try:
                if not self.frames and output is None and sys.exception() is not self._raised:
                    self._on_abort()
                elif not self.frames:
                    self._on_end(frame, output)
            finally:
                frame.forget()

        self._handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        self._handles.append(module.register_forward_hook(after, with_kwargs=True, always_call=True))


def _goes_back() -> bool:
    """Tell whether autograd runs a part again on its way back, as checkpoints do."""
    return torch._C._current_graph_task_id() != -1


def _runs_already(module: nn.Module) -> bool:
    """Tell whether a module whose forward pass is about to start is in the middle of another one."""
    frame, runs = sys._getframe(), 0
    while frame is not None:
        runs += frame.f_code.co_name == "_call_impl" and frame.f_locals.get("self") is module
        frame = frame.f_back
    return runs > 1
