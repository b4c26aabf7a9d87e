"""Said: what a model answered, in words and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from attnlib.picture import View

__all__ = ["Said", "read_output"]

Scores = tuple[tuple[str, float], ...]


@dataclass(frozen=True, eq=False)
class Said:
    """What a model answered, one entry per item of the batch.

    Parameters
    ----------
    kind : "labels", "saliency", "similarity", "next token", "embedding" or "shapes".
    sentences : one sentence per item.
    scores : per item (name, number), best first: labels with probabilities, prompts with
        similarities, next tokens with probabilities; empty where there are none.
    maps : predicted saliency in the model input, [batch, height, width]; None for other kinds.
    points : per item (x, y) of the maximum of the map, in pixels of the picture.
    notes : what a reader must know to read the numbers.
    """

    kind: str
    sentences: tuple[str, ...]
    scores: tuple[Scores, ...] = ()
    maps: Tensor | None = None
    points: tuple[tuple[float, float], ...] = ()
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return "\n".join([*self.sentences, *self.notes])

    def __repr__(self) -> str:
        return f"Said({self.kind!r}, {list(self.sentences)})"


def read_output(
    output: Any,
    *,
    labels: Sequence[str] = (),
    views: tuple[View, ...] = (),
    texts: tuple[str, ...] = (),
    processor: Any = None,
) -> Said:
    """Read the output of a forward pass; what is not understood is reported by its shapes."""
    del labels, texts, processor
    saliency = _get(output, "saliency")
    if saliency is not None:
        return _read_saliency(saliency, views)
    return _read_shapes(output)


def _get(output: Any, name: str) -> Tensor | None:
    value = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
    return value if isinstance(value, Tensor) else None


def _read_saliency(saliency: Float[Tensor, "batch height width"], views: tuple[View, ...]) -> Said:
    saliency = saliency.detach().float().cpu()
    height, width = saliency.shape[-2:]
    sentences, points = [], []
    for index, one in enumerate(saliency):
        y, x = divmod(int(one.argmax()), width)
        view = views[index] if index < len(views) else View.whole((height, width), (height, width))
        left, top, right, bottom = view.box
        point = (left + (x + 0.5) / width * (right - left), top + (y + 0.5) / height * (bottom - top))
        points.append(point)
        sentences.append(
            f"People are predicted to look most at x {point[0]:.0f}, y {point[1]:.0f} px "
            f"({point[0] / view.picture_size[1]:.0%} from the left, {point[1] / view.picture_size[0]:.0%} "
            f"from the top; predicted saliency {float(one.max()):.2f}, mean {float(one.mean()):.2f})."
        )
    note = (
        "Predicted saliency is a number from 0 to 1 per pixel; it is the model's answer, not its attention."
    )
    return Said("saliency", tuple(sentences), maps=saliency, points=tuple(points), notes=(note,))


def _read_shapes(output: Any) -> Said:
    if isinstance(output, Tensor):
        named = {"output": output}
    elif isinstance(output, Mapping):
        named = {str(k): v for k, v in output.items() if isinstance(v, Tensor)}
    elif isinstance(output, (list, tuple)):
        named = {f"output {i}": v for i, v in enumerate(output) if isinstance(v, Tensor)}
    else:
        named = {k: v for k, v in vars(output).items() if isinstance(v, Tensor)} if output else {}
    batch = next((len(v) for v in named.values() if v.dim()), 1)
    text = ", ".join(f"{name} {list(value.shape)}" for name, value in named.items()) or type(output).__name__
    note = "attnlib does not know how to put this output into words: these are its shapes [batch, ...]."
    return Said("shapes", (f"The model returned {text}.",) * batch, notes=(note,))
