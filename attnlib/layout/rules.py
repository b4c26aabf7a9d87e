"""Rules that turn what is known about a stream's tokens into its layout. No library is imported here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attnlib.errors import LayoutError
from attnlib.layout.token_layout import TokenLayout

__all__ = ["TokenFacts", "image_layout", "prefix_names", "text_layout", "with_generated"]

_GIVE = "give one with record.with_layout(TokenLayout(...))"


@dataclass(frozen=True)
class TokenFacts:
    """What was found out about the tokens of a stream by following them through the model.

    Parameters
    ----------
    num_tokens : tokens per item.
    grid : (height, width) of the patches they come from, if they come from an image.
    patch_size : pixels that one patch covers.
    patches : for each token the patch it comes from, row by row, or -1; None = token i is patch i.
    """

    num_tokens: int
    grid: tuple[int, int] | None = None
    patch_size: tuple[int, int] | None = None
    patches: tuple[int, ...] | None = None


def image_layout(
    facts: TokenFacts,
    *,
    prefix: Sequence[str] = (),
    readout: Sequence[int] | str | None = None,
    in_text: bool = False,
) -> TokenLayout:
    """Return the layout of a stream that holds one image.

    Parameters
    ----------
    facts : what is known about its tokens.
    prefix : names of the tokens before the patches, used if there are that many.
    readout : what the head reads; None = the first prefix token, or the patches without one.
    in_text : whether the other tokens are text, not prefix tokens of the image.

    Raises
    ------
    LayoutError
        If the patches are not all there, in order, in one run.
    """
    if facts.grid is None:
        raise LayoutError(f"these tokens do not come from a grid of patches: {_GIVE}")
    count = facts.grid[0] * facts.grid[1]
    patches = facts.patches if facts.patches is not None else tuple(range(facts.num_tokens))
    places = [place for place, patch in enumerate(patches) if patch >= 0]
    start = places[0] if places else 0
    if [patches[place] for place in places] != list(range(count)) or places != list(
        range(start, start + count)
    ):
        raise LayoutError(
            f"of the {count} patches on the {facts.grid[0]}x{facts.grid[1]} grid, {len(places)} tokens were "
            f"found and not all in one run in order: {_GIVE}"
        )
    behind = facts.num_tokens - start - count
    names = list(prefix) if len(prefix) == start else list(TokenLayout(facts.grid, None, start).prefix_tokens)
    if len(prefix) == start + behind:
        names = list(prefix[:start])
    before = 0 if in_text else start
    spans = {}
    if behind or (in_text and start):
        spans["image"] = (start, start + count)
    if in_text and start:
        spans["before"] = (0, start)
    if behind:
        spans["after"] = (start + count, facts.num_tokens)
    read = readout if readout is not None else ((0,) if before else "patches")
    return TokenLayout(facts.grid, facts.patch_size, tuple(names[:before]), read, spans=spans)


def text_layout(
    num_tokens: int,
    *,
    tokens: Sequence[str] | None = None,
    readout: Sequence[int] | None = None,
    spans: dict[str, tuple[int, int]] | None = None,
    notes: Sequence[str] = (),
) -> TokenLayout:
    """Return the layout of a stream of text or other tokens without a grid."""
    labels = tokens if tokens is not None else [f"token {i}" for i in range(num_tokens)]
    read = readout if readout is not None else tuple(range(num_tokens))
    return TokenLayout(None, tokens=labels, readout=read, spans=spans, notes=notes)


def with_generated(layout: TokenLayout | None, num_tokens: int) -> TokenLayout:
    """Return the layout of a prompt with the tokens that were written after it, as the span "generated".

    Parameters
    ----------
    layout : of the prompt, with its picture if it holds one; None = not known.
    num_tokens : prompt and written tokens together.
    """
    if layout is None:
        return text_layout(num_tokens, readout=(num_tokens - 1,))
    start = layout.num_tokens
    labels = None if layout.tokens is None else list(layout.tokens)
    if labels is not None:
        labels += [f"token {i}" for i in range(start, num_tokens)]
    spans = {**layout.spans, "generated": (start, num_tokens)} if num_tokens > start else layout.spans
    return TokenLayout(
        layout.grid,
        layout.patch_size,
        layout.prefix_tokens,
        (num_tokens - 1,),
        tokens=labels,
        spans=spans,
        notes=layout.notes,
    )


def prefix_names(parameters: Sequence[tuple[str, Sequence[int]]], config: Any) -> tuple[str, ...]:
    """Name the learned tokens of a vision transformer by its parameters.

    Parameters
    ----------
    parameters : (name, shape) of the model's parameters.
    config : the model's config, read for the number of registers only.
    """
    found = {"class": 0, "distillation": 0, "register": 0}
    for name, shape in parameters:
        last = name.rsplit(".", 1)[-1].lower()
        if len(shape) > 3 or not last.endswith(("token", "tokens", "embedding", "cls", "reg", "embed")):
            continue
        count = int(shape[-2]) if len(shape) > 1 else 1
        kind = _learned(last)
        if kind is not None and 0 < count <= 64 and not found[kind]:
            found[kind] = count
    registers = getattr(config, "num_register_tokens", None)
    if isinstance(registers, int):
        found["register"] = registers
    names: list[str] = []
    for kind, count in found.items():
        plain = kind != "register" and count == 1
        names += [kind] if plain else [f"{kind} {i + 1}" for i in range(count)]
    return tuple(names)


def _learned(name: str) -> str | None:
    if "dist" in name:
        return "distillation"
    if name.startswith(("reg", "storage")) or "register" in name:
        return "register"
    if "cls" in name or name.startswith("class") or name == "class_embedding":
        return "class"
    return None
