"""Gradients at the outputs of attention calls, by one backward pass that touches no ``.grad``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointError

from attnlib.errors import InputError, NeedsError
from attnlib.record import AttentionRecord

__all__ = ["GradientKeeper"]


@contextmanager
def _readable() -> Iterator[None]:
    """Turn what torch says about a graph that cannot be gone through into what to do about it."""
    try:
        yield
    except CheckpointError as problem:
        raise NeedsError(
            "the model saves memory with gradient checkpoints and computes its parts again on the way back, "
            "where nothing is captured: turn them off (model.gradient_checkpointing_disable() in "
            "transformers, model.set_grad_checkpointing(False) in timm), or capture without a target"
        ) from problem
    except RuntimeError as problem:
        if "second time" not in str(problem):
            raise
        raise NeedsError(
            "another backward pass has used up the graph of this forward pass: call "
            "record.differentiate(score) before it, or give that one retain_graph=True"
        ) from problem


class GradientKeeper:
    """Hold the outputs of the attention calls in the graph until a score is differentiated."""

    def __init__(self) -> None:
        self._watched: list[tuple[Any, Tensor, Callable[[Tensor], Tensor]]] = []
        self._used = False

    def leaf(self, output: Tensor, name: str) -> Tensor:
        """Return ``output`` in the graph; as a leaf if nothing before it needs gradients.

        Parameters
        ----------
        output : of an attention call.
        name : path of the module that made it.
        """
        if not torch.is_grad_enabled():
            raise NeedsError(
                f"gradients were asked for, but {name or 'the model'} runs under torch.no_grad: remove it "
                "around the forward pass, or use capture(model, inputs, target=...). Code of the model's own "
                "that turns gradients off (a frozen part, a torch.autograd.Function, reentrant checkpoints) "
                "cannot be differentiated: capture without a target"
            )
        return output if output.requires_grad else output.detach().requires_grad_()

    def watch(self, source: Any, output: Tensor, arrange: Callable[[Tensor], Tensor]) -> Tensor:
        """Keep the output of one call; ``arrange`` brings its gradient to [batch, head, query, dim].

        Returns
        -------
        What the model goes on with: a copy, so that changing it in place does not change what is kept.
        """
        self._watched.append((source, output, arrange))
        return output.clone()

    def forget(self, source: Any) -> None:
        """Hold the output of a call no longer, because nobody asked for it."""
        self._watched = [one for one in self._watched if one[0] is not source]

    def differentiate(self, record: AttentionRecord, score: Tensor | Mapping[str, Sequence[Tensor]]) -> None:
        """Put the gradient at each call's output into its source.

        Parameters
        ----------
        record : whose calls were watched.
        score : one score (summed over items), or stream -> one score per layer: then each layer gets the
            gradient of its own score.

        Raises
        ------
        InputError
            If the score does not depend on any attention call.
        NeedsError
            If the graph was used up by an earlier call.
        """
        if self._used:
            raise NeedsError("the graph of this record was used by an earlier differentiate: capture again")
        if isinstance(score, Mapping):
            self._each_layer(record, score)
            return
        if not isinstance(score, Tensor) or not score.requires_grad:
            raise InputError(
                "the score does not depend on the attention of this record: compute it from the model's "
                "output inside or after the capture, without detach or no_grad"
            )
        with _readable(), torch.enable_grad():
            found = torch.autograd.grad(score.sum(), [one[1] for one in self._watched], allow_unused=True)
        if all(one is None for one in found):
            raise InputError("the score does not depend on any attention call of this record")
        for (source, output, arrange), gradient in zip(self._watched, found, strict=True):
            gradient = torch.zeros_like(output) if gradient is None else gradient
            source.output_gradient = arrange(gradient.detach())
        self._watched.clear()
        self._used = True

    def _each_layer(self, record: AttentionRecord, scores: Mapping[str, Sequence[Tensor]]) -> None:
        """Differentiate each layer's own score with respect to that layer's call only."""
        watched = {id(source): (source, output, arrange) for source, output, arrange in self._watched}
        for stream, own in scores.items():
            layers = [layer for layer in record.layers if layer.stream == stream]
            wanted = [layer.index for layer in layers if layer.kind != "pool"]
            if not wanted or max(wanted) >= len(own):
                raise InputError(
                    f"{len(own)} scores for the stream {stream!r}: give one per layer (it has "
                    f"{1 + max(wanted, default=-1)})"
                )
            for layer in layers:
                if id(layer.source) not in watched:
                    raise InputError(f"{layer.name} computes in windows: it cannot have a score of its own")
                source, output, arrange = watched[id(layer.source)]
                with _readable(), torch.enable_grad():
                    found = torch.autograd.grad(
                        own[min(layer.index, len(own) - 1)].sum(),  # a pooler's is that of the last layer
                        output,
                        retain_graph=True,
                        allow_unused=True,
                    )[0]
                source.output_gradient = arrange(
                    torch.zeros_like(output) if found is None else found.detach()
                )
        record.layer_scores = True
        self._watched.clear()
        self._used = True
