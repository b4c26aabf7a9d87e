"""Numbers and lists as a reader sees them; every text of this room goes through here."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Sequence

from attnlib.bands import percent
from attnlib.regions import Region

__all__ = ["band_of", "called", "capital", "clean", "count", "listed", "percent", "spoken_range", "times"]

_LONGEST_NAME = 80
_LONGEST_QUOTE = 40  # letters of a line of text that a sentence repeats: its beginning is enough to find it


def spoken_range(low: float, high: float) -> str:
    """Write a range of shares in percent."""
    first, last = percent(low), percent(high)
    return first if first == last else f"{first.removesuffix(' %')} to {last}"


def band_of(value: float, cuts: Sequence[float]) -> int:
    """Return 0..3: how many cuts a value reaches (a value on a cut belongs to the upper band)."""
    return bisect_right(list(cuts), value)


def times(lift: float, cuts: Sequence[float] = ()) -> str:
    """Write a multiple of the even share, with as many decimals as it takes to be in its band.

    Examples
    --------
    >>> times(2.04), times(2.98), times(2.98, (0.5, 1.5, 3.0)), times(2.996, (0.5, 1.5, 3.0))
    ('2.0', '3.0', '2.98', '2.996')
    """
    if lift > 0 and round(lift, 1) == 0:
        return f"{lift:.2f}" if round(lift, 2) else "under 0.01"
    for decimals in range(1, 7):
        written = f"{lift:.{decimals}f}"
        if band_of(float(written), cuts) == band_of(lift, cuts):
            return written
    return f"{lift:.7g}"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number and its noun.

    Examples
    --------
    >>> count(1, "patch", "patches"), count(1369, "patch", "patches")
    ('1 patch', '1,369 patches')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def listed(parts: Sequence[str]) -> str:
    """Join words: a, b and c."""
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else "".join(parts)


def capital(sentence: str) -> str:
    """Begin with a capital letter."""
    return sentence[:1].upper() + sentence[1:]


def clean(text: str) -> str:
    """Make words from outside safe to stand in a sentence: one line, no control signs, not too long.

    Direction marks are dropped too: they could make the rest of the sentence read backwards.
    """
    visible = "".join(
        " " if unicodedata.category(sign) in ("Cc", "Zl", "Zp") else sign
        for sign in text
        if unicodedata.category(sign) not in ("Cf", "Cs", "Co")
    )
    line = " ".join(visible.split())
    return line if len(line) <= _LONGEST_NAME else line[: _LONGEST_NAME - 1].rstrip() + "…"


def _quote_shortened(name: str) -> str:
    """Keep the beginning of a long line of text, and its quotation marks."""
    lead, opened, rest = name.partition('"')
    quote, closed, tail = rest.rpartition('"')
    words = " ".join(quote.split())
    if not (opened and closed) or len(words) <= _LONGEST_QUOTE:
        return name
    kept = words[: _LONGEST_QUOTE + 1].rsplit(" ", 1)[0][:_LONGEST_QUOTE].rstrip(" ,;:.-")
    return f'{lead}"{kept}…"{tail}'


def called(region: Region | str, kind: str = "mask") -> str:
    """Name a region inside a sentence: finders' names as they are, names given by people in quotes.

    Examples
    --------
    >>> called('the words "A LIFE"', "text")
    'the words "A LIFE"'
    >>> called('the words "it is a truth universally acknowledged that a single man"', "text")
    'the words "it is a truth universally acknowledged…"'
    """
    name, kind = (region.name, region.kind) if isinstance(region, Region) else (region, kind)
    name = clean(_quote_shortened(name) if kind == "text" else name)
    if kind not in ("box", "mask") or name.casefold().startswith(("the ", "a ", "an ")):
        return name
    return f'the {"box" if kind == "box" else "region"} "{name}"'
