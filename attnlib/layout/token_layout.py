"""TokenLayout: which token is which."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, SupportsIndex

from attnlib.errors import InputError, LayoutError

__all__ = ["TokenLayout"]

_ONE_PREFIX = ("class",)
_MOST_NAMES = 6


@dataclass(frozen=True)
class TokenLayout:
    """Where the tokens of one stream stand: prefix tokens, patches on a grid, text.

    Tokens are numbered as the model numbers them: prefix tokens first, then the patches row by row,
    then whatever follows. In a vision-language sequence the image may stand anywhere: give its
    range as ``spans={"image": (start, stop)}``.

    Parameters
    ----------
    grid : (height, width) in patches, or None for a stream without an image.
    patch_size : pixels of the model input that one patch covers, (height, width) or one number.
    prefix_tokens : names of the tokens before the patches, such as ``("class", "register 1")``; a
        number stands for that many unnamed ones (the first is called "class").
    readout : the tokens whose final state the model's head reads: token indices (prefix counted), or
        "patches" when it pools over the patches or reads each of them; None if it is not known.
    tokens : one label per token, for text; None for images.
    spans : named ranges (start, stop) of tokens, such as ``{"image": (5, 581)}``.
    notes : sentences that a reader of the layout should know, shown behind it.
    item_readouts : where each item of the batch is read at places of its own, such as the end of its
        text: these places, one tuple per item. ``readout`` is None then.
    item_tokens : where the items are different texts: the labels of each, one tuple per item. ``tokens``
        then holds numbers; :meth:`of_item` gives the layout of one of them.

    Raises
    ------
    InputError
        If the numbers contradict one another.
    """

    grid: tuple[int, int] | None
    patch_size: tuple[int, int] | None
    prefix_tokens: tuple[str, ...]
    readout: tuple[int, ...] | str | None
    tokens: tuple[str, ...] | None
    spans: Mapping[str, tuple[int, int]]
    notes: tuple[str, ...] = field(default=())
    item_readouts: tuple[tuple[int, ...], ...] | None = field(default=None)
    item_tokens: tuple[tuple[str, ...], ...] | None = field(default=None)

    def __init__(
        self,
        grid: Iterable[SupportsIndex] | None,
        patch_size: SupportsIndex | Iterable[SupportsIndex] | None = None,
        prefix_tokens: SupportsIndex | Iterable[str] = (),
        readout: SupportsIndex | Iterable[SupportsIndex] | str | None = None,
        tokens: Sequence[str] | None = None,
        spans: Mapping[str, tuple[int, int]] | None = None,
        notes: Sequence[str] = (),
        item_readouts: Sequence[Sequence[int]] | None = None,
        item_tokens: Sequence[Sequence[str]] | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "grid", None if grid is None else _pair(grid, "grid"))
        put(self, "patch_size", None if patch_size is None else _pair(patch_size, "patch_size"))
        put(self, "prefix_tokens", _names(prefix_tokens))
        put(self, "tokens", None if tokens is None else tuple(tokens))
        put(self, "spans", {k: (int(a), int(b)) for k, (a, b) in dict(spans or {}).items()})
        put(self, "notes", tuple(notes))
        put(self, "readout", _readout(readout))
        put(self, "item_readouts", None if item_readouts is None else tuple(map(tuple, item_readouts)))
        put(self, "item_tokens", None if item_tokens is None else tuple(map(tuple, item_tokens)))
        self._check()

    def _check(self) -> None:
        if self.grid is None and self.tokens is None:
            raise InputError("a TokenLayout needs a grid (images) or tokens (text); both are None")
        if "image" in self.spans and self.grid is not None:
            start, stop = self.spans["image"]
            if stop - start != self.num_patches:
                raise InputError(
                    f"the span 'image' holds {stop - start} tokens, but a grid of "
                    f"{self.grid[0]}x{self.grid[1]} has {self.num_patches} patches"
                )
        for name, (start, stop) in self.spans.items():
            if not 0 <= start < stop <= self.num_tokens:
                raise InputError(
                    f"the span {name!r} is the tokens from {start} up to {stop} of {self.num_tokens}: "
                    "give (start, stop) within them, stop behind the last one"
                )
        if self.grid is not None and self.patch_start + self.num_patches > self.num_tokens:
            raise InputError(
                f"{self.num_patches} patches from token {self.patch_start} on do not fit into "
                f"{self.num_tokens} tokens"
            )
        if self.item_readouts is not None and self.readout is not None:
            raise InputError("give readout= for all items, or item_readouts=, not both")
        lengths = [len(one) for one in self.item_tokens or ()]
        if any(length != self.num_tokens for length in lengths):
            raise InputError(
                f"item_tokens name {lengths} tokens, the layout has {self.num_tokens} in each item"
            )
        read = [*self.readout] if isinstance(self.readout, tuple) else []
        read += [i for one in self.item_readouts or () for i in one]
        if read:
            outside = [i for i in read if not 0 <= i < self.num_tokens]
            if outside:
                raise InputError(f"readout {outside} is outside the {self.num_tokens} tokens of the layout")

    @property
    def num_prefix_tokens(self) -> int:
        """Number of tokens before the patches."""
        return len(self.prefix_tokens)

    @property
    def num_patches(self) -> int:
        """Number of patches on the grid; 0 without an image."""
        return 0 if self.grid is None else self.grid[0] * self.grid[1]

    @property
    def num_tokens(self) -> int:
        """Number of tokens in the sequence."""
        if self.tokens is not None:
            return len(self.tokens)
        stops = [stop for _, stop in self.spans.values()]
        return max([self.num_prefix_tokens + self.num_patches, *stops])

    @property
    def patch_start(self) -> int:
        """Index of the first patch token."""
        return self.spans["image"][0] if "image" in self.spans else self.num_prefix_tokens

    @property
    def patch_slice(self) -> slice:
        """The patch tokens, as a slice of the token axis.

        Raises
        ------
        LayoutError
            If the stream has no image.
        """
        if self.grid is None:
            raise LayoutError("this stream has no patch grid: it is a text stream")
        return slice(self.patch_start, self.patch_start + self.num_patches)

    @property
    def readout_indices(self) -> tuple[int, ...]:
        """Token indices that the model's head reads.

        Raises
        ------
        LayoutError
            If the layout does not say.
        """
        if self.item_readouts is not None:
            raise LayoutError(
                f"the head reads another place in each item ({self._read_by_item()}): give query=, or None "
                "for these places"
            )
        if self.readout is None:
            raise LayoutError(
                "which tokens the head reads is not known: give query= (a token index, a (row, column) "
                "patch, 'mean' or 'all'), or a layout with readout="
            )
        if isinstance(self.readout, tuple):
            return self.readout
        return tuple(range(self.num_tokens))[self.patch_slice]

    def token_index(self, row: int, column: int) -> int:
        """Return the token index of the patch at ``row``, ``column`` (negative counts from the end)."""
        if self.grid is None:
            raise LayoutError("this stream has no patch grid: give a token index instead")
        height, width = self.grid
        if not (-height <= row < height and -width <= column < width):
            raise InputError(f"patch ({row}, {column}) is outside the grid of {height}x{width}")
        return self.patch_start + (row % height) * width + column % width

    def patch_position(self, index: int) -> tuple[int, int] | None:
        """Return (row, column) of a token, or None if the token is not a patch."""
        if self.grid is None or not 0 <= index - self.patch_start < self.num_patches:
            return None
        return divmod(index - self.patch_start, self.grid[1])

    def of_item(self, item: int) -> TokenLayout:
        """Return the layout of one item of the batch: its own labels, and where it is read."""
        changes: dict[str, Any] = {}
        if self.item_tokens is not None and item < len(self.item_tokens):
            changes |= {"tokens": self.item_tokens[item], "item_tokens": None}
        if self.item_readouts is not None and item < len(self.item_readouts):
            changes |= {"readout": self.item_readouts[item], "item_readouts": None}
        return TokenLayout.from_dict({**self.to_dict(), **changes}) if changes else self

    def label(self, index: int) -> str:
        """Name a token: its text, its prefix name, or "patch (row, column)"."""
        position = self.patch_position(index)
        if position is not None:
            return f"patch {position}"
        if self.tokens is not None and 0 <= index < len(self.tokens):
            return self.tokens[index]
        if 0 <= index < self.num_prefix_tokens:
            return self.prefix_tokens[index]
        return f"token {index}"

    def in_words(self, indices: Iterable[int]) -> str:
        """Name several tokens in one phrase that stays short: "class, every patch"."""
        chosen = list(indices)
        if len(chosen) == self.num_tokens > 4:
            return "every token"
        patches = set(range(self.patch_start, self.patch_start + self.num_patches))
        whole = len(patches) > 1 and patches <= set(chosen)
        words = [self.label(index) for index in chosen if not (whole and index in patches)]
        if len(words) > _MOST_NAMES:
            words = [*words[: _MOST_NAMES - 1], f"{len(words) - _MOST_NAMES + 1} more"]
        return ", ".join([*words, *(["every patch"] if whole else [])])

    def to_dict(self) -> dict[str, Any]:
        """Return the layout as plain JSON-ready values."""
        return {
            "grid": None if self.grid is None else list(self.grid),
            "patch_size": None if self.patch_size is None else list(self.patch_size),
            "prefix_tokens": list(self.prefix_tokens),
            "readout": list(self.readout) if isinstance(self.readout, tuple) else self.readout,
            "tokens": None if self.tokens is None else list(self.tokens),
            "spans": {name: list(span) for name, span in self.spans.items()},
            "notes": list(self.notes),
            **({} if self.item_readouts is None else {"item_readouts": [*map(list, self.item_readouts)]}),
            **({} if self.item_tokens is None else {"item_tokens": [*map(list, self.item_tokens)]}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TokenLayout:
        """Rebuild a layout from :meth:`to_dict`."""
        return cls(**dict(values))

    def _read_by_item(self) -> str:
        items = enumerate(self.item_readouts or ())
        return "; ".join(f"item {item}: {self.in_words(read)}" for item, read in items)

    def __str__(self) -> str:
        parts = []
        if self.grid is not None:
            size = f" of {self.patch_size[0]}x{self.patch_size[1]} px" if self.patch_size else ""
            parts.append(
                f"{self.grid[0]}x{self.grid[1]} patches{size} (tokens "
                f"{self.patch_start}-{self.patch_start + self.num_patches - 1})"
            )
        if self.prefix_tokens:
            parts.append(f"prefix: {', '.join(self.prefix_tokens)}")
        if self.tokens is not None:
            several = "" if self.item_tokens is None else f" in each of {len(self.item_tokens)} texts"
            parts.append(f"{len(self.tokens)} tokens{several}")
        parts += [f"{name}: tokens {a}-{b - 1}" for name, (a, b) in self.spans.items()]
        read = self.readout or ("not known" if self.item_readouts is None else self._read_by_item())
        if isinstance(read, tuple):
            read = self.in_words(read)
        parts.append(f"the head reads: {read}")
        return "; ".join([*parts, *self.notes])


def _pair(value: Any, name: str) -> tuple[int, int]:
    given = value.tolist() if hasattr(value, "tolist") else value
    numbers = _whole(given, f"{name} must be (height, width) of at least 1")
    pair = numbers if isinstance(given, Iterable) else numbers * 2
    if len(pair) != 2 or min(pair) < 1:
        raise InputError(f"{name} must be (height, width) of at least 1, got {value!r}")
    return pair[0], pair[1]


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, Iterable):
        names = tuple(value)
        if not all(isinstance(name, str) for name in names):
            raise InputError(f"prefix_tokens are names, or how many there are, got {value!r}")
        return names
    (count,) = _whole(value, "prefix_tokens are names, or how many there are")
    if count < 0:
        raise InputError(f"prefix_tokens cannot be negative, got {count}")
    return _ONE_PREFIX[:count] + tuple(f"prefix {i}" for i in range(2, count + 1))


def _readout(value: Any) -> tuple[int, ...] | str | None:
    if value is None:
        return None
    if isinstance(value, str):
        if value != "patches":
            raise InputError(f"readout must be token indices or 'patches', got {value!r}")
        return value
    indices = _whole(value, "readout must be token indices or 'patches'")
    if not indices:
        raise InputError("readout is empty: give the token indices the head reads, or 'patches'")
    return indices


def _whole(value: Any, rule: str) -> tuple[int, ...]:
    """Return one whole number or several, from whatever holds them, as a tuple."""
    given: Any = value.tolist() if hasattr(value, "tolist") else value
    try:
        several: list[Any] = (
            list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
        )
        if any(isinstance(one, bool) for one in several):
            raise TypeError
        return tuple(map(operator.index, several))
    except TypeError:
        raise InputError(f"{rule}, got {value!r}") from None
