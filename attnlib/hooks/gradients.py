"""Gradients at the outputs of attention calls, by one backward pass that touches no ``.grad``."""

from __future__ import annotations

import torch
from torch import Tensor

from attnlib.errors import InputError, NeedsError
from attnlib.record import AttentionRecord

__all__ = ["GradientKeeper"]


class GradientKeeper:
    """Hold the outputs of the attention calls in the graph until a score is differentiated."""

    def __init__(self) -> None:
        self._outputs: dict[int, Tensor] = {}
        self._used = False

    def watch(self, key: int, output: Tensor) -> Tensor:
        """Keep ``output`` for differentiation; make it a leaf if nothing before it needs gradients."""
        if not torch.is_grad_enabled():
            raise NeedsError(
                "gradients were asked for, but the forward pass runs under torch.no_grad: remove it, or use "
                "capture(model, inputs, target=...)"
            )
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        self._outputs[key] = output
        return output

    def differentiate(self, record: AttentionRecord, score: Tensor) -> None:
        """Put the gradient at each call's output into its source.

        Raises
        ------
        InputError
            If the score does not depend on any attention call.
        NeedsError
            If the graph was used up by an earlier call.
        """
        if self._used:
            raise NeedsError("the graph of this record was used by an earlier differentiate: capture again")
        if not isinstance(score, Tensor) or not score.requires_grad:
            raise InputError(
                "the score does not depend on the attention of this record: compute it from the model's "
                "output inside or after the capture, without detach or no_grad"
            )
        keys = list(self._outputs)
        found = torch.autograd.grad(score.sum(), [self._outputs[k] for k in keys], allow_unused=True)
        if all(one is None for one in found):
            raise InputError("the score does not depend on any attention call of this record")
        by_key = dict(zip(keys, found, strict=True))
        for layer in record.layers:
            key = id(layer.source)
            if key in by_key:
                gradient = by_key[key]
                source = layer.source
                source.output_gradient = (  # type: ignore[attr-defined]
                    torch.zeros_like(self._outputs[key]) if gradient is None else gradient.detach()
                )
        self._outputs.clear()
        self._used = True
