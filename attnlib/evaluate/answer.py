"""Which part of a model's output is its answer, and how much it changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.errors import InputError, NeedsError

__all__ = ["Answer", "first_answer", "label_logits", "main_tensor", "read_answer"]

_MAIN = ("logits", "saliency", "logits_per_image", "image_embeds", "pooler_output", "last_hidden_state")


@dataclass(frozen=True, eq=False)
class Answer:
    """What is watched while parts of the picture are hidden.

    Parameters
    ----------
    kind : "score" (one number), "embedding" (a vector) or "map" (a number per place).
    name : what it is, in words.
    value : [1], [feature] or [channel, height, width].
    read : gets the output of another forward pass and returns the same part of it.
    """

    kind: str
    name: str
    value: Tensor
    read: Callable[[Any], Tensor]

    def change(self, output: Any, hidden: Float[Tensor, "height width"]) -> tuple[float, float | None]:
        """Return how much an output differs from the answer, and for a map the change inside apart.

        Parameters
        ----------
        output : of a forward pass with a part hidden.
        hidden : how much of each pixel of the model input was hidden.
        """
        other = self.read(output)
        if self.kind == "score":
            return float((other - self.value).abs().sum()), None
        if self.kind == "embedding":
            return float(1 - torch.nn.functional.cosine_similarity(other, self.value, dim=0)), None
        difference = (other - self.value).abs().mean(dim=0)
        shape = (int(difference.shape[-2]), int(difference.shape[-1]))
        inside = torch.nn.functional.interpolate(hidden[None, None].float(), shape, mode="area")[0, 0]
        outside = 1 - inside
        return (
            float((difference * outside).sum() / outside.sum().clamp(min=1e-9)),
            float((difference * inside).sum() / inside.sum().clamp(min=1e-9)),
        )


def read_answer(output: Any, labels: tuple[str, ...] = ()) -> Answer:
    """Choose what to watch in an output: a map, the first label, the first text, or an embedding.

    Raises
    ------
    NeedsError
        If none of these is in the output.
    """
    saliency = _get(output, "saliency")
    if saliency is not None and saliency.dim() == 3:
        return _answer("map", "the predicted saliency", output, lambda o: _get(o, "saliency")[0][None])
    pairs = _get(output, "logits_per_image")
    if pairs is not None and pairs.dim() == 2:
        best = int(pairs[0].argmax())
        return _answer(
            "score",
            "the score of the closest text",
            output,
            lambda o: _get(o, "logits_per_image")[0, best][None],
        )
    logits = _logits(output)
    if logits is not None and logits.dim() == 4:
        return _answer("map", "the predicted classes", output, lambda o: _logits(o)[0].softmax(dim=0))
    if (logits := label_logits(output, labels)) is not None:
        best = int(logits[0].argmax())
        name = f'the logit of "{labels[best]}"' if best < len(labels) else f"the logit of class {best}"
        return _answer("score", name, output, lambda o: _logits(o)[0, best][None])
    for field in ("image_embeds", "pooler_output"):
        if _get(output, field) is not None:
            return _answer(
                "embedding", "the picture's embedding", output, lambda o, f=field: _get(o, f)[0].flatten()
            )
    states = _get(output, "last_hidden_state")
    if states is not None and states.dim() == 3:
        return _answer(
            "embedding", "the first token's final state", output, lambda o: _get(o, "last_hidden_state")[0, 0]
        )
    if isinstance(output, Tensor) and output.dim() == 2:
        return _answer("embedding", "the picture's embedding", output, lambda o: _logits(o)[0])
    raise NeedsError("the model's output holds no score, embedding or map whose change could be measured")


def label_logits(output: Any, labels: Sequence[str] = ()) -> Float[Tensor, "batch label"] | None:
    """Return the logits of the labels, or None; a bare tensor holds some only if the model has labels."""
    logits = _logits(output)
    told = logits is not None and logits.dim() == 2 and (labels or not isinstance(output, Tensor))
    return logits if told else None


def first_answer(output: Any) -> Tensor:
    """Return what is explained when nobody says it: the highest logit, or the mean of a predicted map.

    Raises
    ------
    NeedsError
        If the output holds neither.
    """
    logits, saliency = _logits(output), _get(output, "saliency")
    if logits is not None and logits.dim() == 2:
        return logits.amax(dim=1)
    if saliency is not None:
        return saliency.flatten(1).mean(dim=1)
    raise NeedsError("this method explains one score of the output: name it with target=")


def main_tensor(output: Any) -> Tensor:
    """Return the tensor of an output that carries its answer.

    Raises
    ------
    InputError
        If there is none of those that are known.
    """
    for name in _MAIN:
        value = _get(output, name)
        if value is not None and value.is_floating_point():
            return value
    if isinstance(output, Tensor):
        return output
    raise InputError(f"cannot tell the answer of {type(output).__name__}: give score=")


def _answer(kind: str, name: str, output: Any, read: Callable[[Any], Any]) -> Answer:
    def plain(other: Any) -> Tensor:
        return read(other).detach().float().cpu()

    return Answer(kind, name, plain(output), plain)


def _logits(output: Any) -> Any:
    return output if isinstance(output, Tensor) else _get(output, "logits")


def _get(output: Any, name: str) -> Any:
    value = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
    return value if isinstance(value, Tensor) else None
