"""Which modules pass information between tokens by other means than attention that was seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from attnlib.hooks.eager import PRODUCTS
from attnlib.hooks.origins import Origins
from attnlib.hooks.torch_names import FOURIER, LINEARS

__all__ = ["FIXED", "MIXING", "PRODUCT", "SAMPLING", "SCAN", "SLIDING", "STATES", "WAVES", "Mixing"]

PRODUCT = "multiplies states of tokens with each other"
SLIDING = "slides a convolution over the tokens"
SCAN = "adds up along the tokens"
FIXED = "mixes tokens by weights that are the same for every input"
WAVES = "takes a Fourier transform over the tokens"
SAMPLING = "reads the image at sampled points"
STATES = "multiplies states of the same token"  # alone it mixes nothing

_WORDS = {
    **dict.fromkeys(PRODUCTS | {"baddbmm"}, PRODUCT),
    "conv1d": SLIDING,
    **dict.fromkeys(("cumsum", "logcumsumexp", "cumprod"), SCAN),
    "grid_sample": SAMPLING,
    **dict.fromkeys(LINEARS, FIXED),
    **dict.fromkeys(FOURIER, WAVES),
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
        what: str | None = _WORDS[name]
        given = [*args, *kwargs.values()]
        equation = ""
        if given and isinstance(given[0], str):
            equation = given[0]
            given = [*given[1]] if len(given) == 2 and isinstance(given[1], list | tuple) else given[1:]
        tensors = [one for one in given if isinstance(one, Tensor)]
        if what is SLIDING:
            found = len(tensors) > 1 and tensors[1].dim() == 3 and tensors[1].shape[-1] > 1
        elif what is PRODUCT:
            ids = [_numbers(one, origins) for one in (tensors[-2:] if name == "baddbmm" else tensors[:2])]
            found = len(ids) == 2 and ids[0] is not None and ids[1] is not None
            if found and ids[0] is not None and ids[1] is not None:
                what = PRODUCT if _pairs(ids[0], ids[1], equation) else STATES
        elif what is SCAN:
            ids = [_numbers(tensors[0], origins)] if tensors else [None]
            axis = next((one for one in given if isinstance(one, int) and not isinstance(one, bool)), -1)
            found = ids[0] is not None and ids[0].shape[axis] > 1
        elif what is FIXED:
            numbers = _numbers(tensors[0], origins)
            found = numbers is not None and numbers.dim() > 2 and numbers.shape[-2] == 1 < numbers.shape[-1]
        elif what is WAVES:
            numbers = _numbers(tensors[0], origins)
            axes = _axes(name, args, kwargs, tensors[0].dim())
            found = numbers is not None and any(numbers.shape[one] > 1 for one in axes)
        else:
            found = bool(tensors) and _numbers(tensors[0], origins) is not None
        if found and what is not None:
            self.seen.setdefault(where, {})[what] = None


def _numbers(tensor: Tensor, origins: Origins) -> Tensor | None:
    """Return the token numbers of a tensor that holds states of several tokens of an item."""
    if isinstance(tensor, nn.Parameter) or not tensor.is_floating_point():
        return None
    origin = origins.get(tensor)
    return origin.ids if origin is not None and origin.ids.numel() > origin.sequence.batch else None


def _axes(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], count: int) -> Sequence[int]:
    """Return the axes of a Fourier transform."""
    given = args[2] if len(args) > 2 else kwargs.get("dim")
    if given is None:
        given = (-2, -1) if name.endswith("2") else range(count) if name.endswith("n") else -1
    return [given] if isinstance(given, int) else given


def _pairs(left: Tensor, right: Tensor, equation: str) -> bool:
    """Tell whether a product brings different tokens together: in its sum, or by rows and columns."""
    lead = "".join(chr(ord("k") + i) for i in range(8))
    a, b, out = lead[8 - left.dim() + 2 :] + "xy", lead[8 - right.dim() + 2 :] + "yz", lead + "xz"
    if "->" in equation and "..." not in equation:
        inputs, _, out = equation.replace(" ", "").partition("->")
        a, _, b = inputs.partition(",")
    mine = {letter for letter, size in zip(a, left.shape, strict=False) if size > 1}
    other = {letter for letter, size in zip(b, right.shape, strict=False) if size > 1}
    summed = {letter for letter in (*a, *b) if letter not in out}
    return bool((mine | other) & summed) or bool(mine - set(b) and other - set(a))
