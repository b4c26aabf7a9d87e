"""Which modules pass information between tokens by other means than attention that was seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from attnlib.hooks.eager import PRODUCTS
from attnlib.hooks.origins import Origins

__all__ = ["MIXING", "PRODUCT", "SAMPLING", "SCAN", "SLIDING", "Mixing"]

PRODUCT = "multiplies states of tokens with each other"
SLIDING = "slides a convolution over the tokens"
SCAN = "adds up along the tokens"
SAMPLING = "reads the image at sampled points"

_WORDS = {
    **dict.fromkeys(PRODUCTS | {"baddbmm"}, PRODUCT),
    "conv1d": SLIDING,
    **dict.fromkeys(("cumsum", "logcumsumexp", "cumprod"), SCAN),
    "grid_sample": SAMPLING,
}
MIXING = frozenset(_WORDS)


class Mixing:
    """Remember, for each module, by which operations it mixed tokens."""

    def __init__(self) -> None:
        self.seen: dict[str, dict[str, None]] = {}

    def look(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], origins: Origins, where: str
    ) -> None:
        """See one torch call that is no attention and may mix tokens."""
        what = _WORDS[name]
        given = [*args, *kwargs.values()]
        if given and isinstance(given[0], str):  # einsum: the equation comes first
            given = [*given[1]] if len(given) == 2 and isinstance(given[1], list | tuple) else given[1:]
        tensors = [one for one in given if isinstance(one, Tensor)]
        if what is SLIDING:
            found = len(tensors) > 1 and tensors[1].dim() == 3 and tensors[1].shape[-1] > 1
        elif what is PRODUCT:
            factors = tensors[-2:] if name == "baddbmm" else tensors[:2]
            found = len(factors) == 2 and all(_of_tokens(one, origins) for one in factors)
        else:
            found = bool(tensors) and _of_tokens(tensors[0], origins)
        if found:
            self.seen.setdefault(where, {})[what] = None


def _of_tokens(tensor: Tensor, origins: Origins) -> bool:
    if isinstance(tensor, nn.Parameter) or not tensor.is_floating_point():
        return False
    origin = origins.get(tensor)
    return origin is not None and origin.ids.numel() > origin.sequence.batch
