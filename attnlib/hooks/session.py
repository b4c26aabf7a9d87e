"""One capture at work: sees the attention calls and turns them into layers of a record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from attnlib.errors import CaptureError
from attnlib.hooks.gradients import GradientKeeper
from attnlib.hooks.trail import Trail
from attnlib.hooks.verify import verify
from attnlib.record import AttentionRecord, LayerAttention, ProjectedAttention

__all__ = ["Session"]

_CROSS_INPUTS = ("encoder_hidden_states", "key_value_states", "context")


class Session(TorchFunctionMode):
    """Intercept attention calls of one model in one thread."""

    def __init__(self, model: nn.Module, record: AttentionRecord, *, gradients: bool) -> None:
        super().__init__()
        self.model = model
        self.record = record
        self.trail = Trail(model)
        self.keeper = GradientKeeper() if gradients else None

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See each torch call; keep those that are attention."""
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention and self.trail.frames:
            return self._sdpa(func, *args, **kwargs)
        return func(*args, **kwargs)

    def _sdpa(
        self,
        func: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        options = {"scale": scale, "enable_gqa": enable_gqa} if enable_gqa else {"scale": scale}
        output = func(query, key, value, attn_mask, dropout_p, is_causal, **options)
        name = self.trail.frames[-1].name
        if dropout_p > 0:
            raise CaptureError(
                f"{name} drops attention weights at random (dropout {dropout_p}): call model.eval() first"
            )
        source = ProjectedAttention(
            query.detach(),
            key.detach(),
            value.detach(),
            None if attn_mask is None else attn_mask.detach(),
            is_causal,
            query.shape[-1] ** -0.5 if scale is None else scale,
        )
        verify(source, output, name)
        if self.keeper is not None:
            output = self.keeper.watch(id(source), output)
        self._add(name, source)
        return output

    def _add(self, name: str, source: ProjectedAttention) -> None:
        stream = self._stream(name)
        index = sum(layer.stream == stream for layer in self.record.layers)
        layer = LayerAttention(name, index, self._kind(source), source, stream)
        self.record.layers = (*self.record.layers, layer)

    def _kind(self, source: ProjectedAttention) -> str:
        _, _, num_queries, num_keys = source.shape
        for frame in self.trail.frames[-2:]:
            if any(isinstance(frame.kwargs.get(word), Tensor) for word in _CROSS_INPUTS):
                return "cross"
        if num_queries == num_keys:
            return "self"
        return "pool" if num_queries == 1 else "cross"

    def _stream(self, name: str) -> str:
        parts = name.lower().split(".")
        for part in parts:
            for stream in ("vision", "visual", "text", "decoder"):
                if stream in part:
                    return "vision" if stream == "visual" else stream
        config = getattr(self.model, "config", None)
        if getattr(config, "is_encoder_decoder", False):
            return "encoder"
        inputs = self.trail.inputs[-1] if self.trail.inputs else None
        given = [] if inputs is None else [*inputs.args, *inputs.kwargs.values()]
        tensors = [t for t in given if isinstance(t, Tensor)]
        return "vision" if any(t.dim() == 4 and t.is_floating_point() for t in tensors) else "text"

    def start(self) -> None:
        """Register the hooks and enter the function mode."""
        self.trail.enter()
        try:
            self.__enter__()
        except BaseException:
            self.trail.leave()
            raise

    def stop(self) -> None:
        """Give the model back."""
        try:
            self.__exit__(None, None, None)
        finally:
            self.trail.leave()

    def finish(self) -> None:
        """Fill what is known only after the forward pass."""
        if not self.record.layers:
            raise CaptureError(
                "the forward pass ran no attention that attnlib can see: no module called "
                "scaled_dot_product_attention"
            )
        self.record.output = self.trail.output
        if self.keeper is not None:
            self.record.on_differentiate = self.keeper.differentiate


def is_grad_possible() -> bool:
    """Tell whether autograd can record here."""
    return not torch.is_inference_mode_enabled()
