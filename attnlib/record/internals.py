"""What a record keeps of a block beside its attention: the vectors that norm-based methods decompose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["BlockInternals", "FeedForward", "LinearMap", "NormMap", "NotDecomposable", "Rerun"]


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A linear map of the last axis, ``x W^T + b``.

    Parameters
    ----------
    weight : the matrix, rows are outputs.
    bias : added to every row, or None.
    """

    weight: Float[Tensor, "out into"]
    bias: Float[Tensor, " out"] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the map."""
        return torch.nn.functional.linear(x, self.weight, self.bias)


@dataclass(frozen=True, eq=False)
class NormMap:
    """A layer normalisation: centre, divide by the deviation, gain, shift.

    Parameters
    ----------
    gain, shift : one value a channel, or None.
    eps : added to the variance.
    """

    gain: Tensor | None
    shift: Tensor | None
    eps: float

    def deviation(self, x: Tensor) -> Tensor:
        """Return sqrt(variance + eps) of each row, without the last axis."""
        return (x.var(dim=-1, unbiased=False) + self.eps).sqrt()

    def linear(self, x: Tensor) -> Tensor:
        """Apply the linear part, centring and gain, without the division and the shift."""
        centred = x - x.mean(dim=-1, keepdim=True)
        return centred if self.gain is None else centred * self.gain.to(x.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the whole normalisation."""
        out = self.linear(x) / self.deviation(x)[..., None]
        return out if self.shift is None else out + self.shift.to(x.dtype)


@dataclass(frozen=True, eq=False)
class FeedForward:
    """A feed-forward of two linear maps with an activation between them.

    Parameters
    ----------
    first, second : the maps; a factor after the second one is folded into it.
    activation : the element-wise function between them.
    norm : normalisation before the first map, in pre-norm blocks.
    """

    first: LinearMap
    second: LinearMap
    activation: Callable[[Tensor], Tensor]
    norm: NormMap | None = None


@dataclass(frozen=True, eq=False)
class BlockInternals:
    r"""One attention block, taken apart and verified against what the model computed.

    .. math:: y_i = x_i + b_O + \sum_h \sum_j A^h_{ij}\, W_O^h v^h_j

    Parameters
    ----------
    output : W_O over the merged heads, with factors that follow it (layer scale) folded in.
    residual : x, what the skip connection adds.
    total : y, the sum; what the first norm of a post-norm block reads.
    norm : the normalisation of ``total`` in a post-norm block; None in a pre-norm block.
    second_total : the sum after the feed-forward, or None if the block has none.
    second_norm : the normalisation of ``second_total`` in a post-norm block.
    feed_forward : its parts, if it is two linear maps and an activation.
    value : the map from what the block reads to its value vectors, if it is one linear map.
    value_norm : the normalisation before it, in a pre-norm block.
    deviation : largest difference found when the parts were put together, relative to the output.
    problem : why ``feed_forward`` or ``value`` is None.
    """

    output: LinearMap
    residual: Float[Tensor, "batch query width"]
    total: Float[Tensor, "batch query width"]
    norm: NormMap | None = None
    second_total: Float[Tensor, "batch query width"] | None = None
    second_norm: NormMap | None = None
    feed_forward: FeedForward | None = None
    value: LinearMap | None = None
    value_norm: NormMap | None = None
    deviation: float = 0.0
    problem: str = ""

    @property
    def is_post_norm(self) -> bool:
        """Whether the sum of attention and skip connection is normalised."""
        return self.norm is not None

    def out(self) -> Float[Tensor, "batch query width"]:
        """Return the output of the attention sub-layer: the sum, normalised in a post-norm block."""
        return self.total if self.norm is None else self.norm(self.total)

    def whole_out(self) -> Float[Tensor, "batch query width"]:
        """Return the output of a post-norm block; of a pre-norm one, that of its attention sub-layer."""
        if self.second_norm is None or self.second_total is None:
            return self.out()
        return self.second_norm(self.second_total)


@dataclass(frozen=True)
class NotDecomposable:
    """Stands in place of the internals of a block that could not be taken apart.

    Parameters
    ----------
    reason : what was found instead, for the error message.
    """

    reason: str


@runtime_checkable
class Rerun(Protocol):
    """A handle to run the captured forward pass again; the model is given back as it came."""

    target: Any

    def start(self, stream: str) -> Tensor:
        """Return what a stream starts from: pixels, or the embeddings of its tokens."""
        ...

    def start_name(self, stream: str) -> str:
        """Return what that is: "embeddings", or the name of an input."""
        ...

    def score(
        self,
        stream: str,
        start: Tensor | None = None,
        *,
        target: Any = None,
        taps: Mapping[int, Callable[[Tensor], Tensor]] | None = None,
        rule: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any] | None = None,
        activation: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Float[Tensor, " batch"]:
        """Run the model and return the score of the target, one value per item, with its graph."""
        ...

    def gradient(self, score: Tensor, wanted: Tensor) -> Tensor:
        """Return the gradient of a score, summed over items; ``.grad`` of parameters is not touched."""
        ...
