"""Maps that know nothing of the model: what any method must beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from attnlib.errors import InputError, LayoutError
from attnlib.layout import TokenLayout
from attnlib.methods.card import Option
from attnlib.methods.queries import find_starts
from attnlib.methods.registry import method
from attnlib.methods.request import Answer, Request
from attnlib.methods.transitions import inverse
from attnlib.picture import View, load_picture

__all__ = ["centre", "edges", "random", "uniform"]

_NOTE = "a baseline: it knows nothing of the model"


@method(
    "uniform",
    title="Uniform baseline",
    summary="Every patch (or text token) gets the same.",
    formula=r"s_j = 1/N",
    family="baseline",
    takes_query=False,
    cost="none",
)
def uniform(request: Request) -> Answer:
    """Give every real patch the same."""
    return _answer(request, torch.ones(_size(request)))


@method(
    "random",
    title="Random baseline",
    summary="Every patch (or text token) gets a random number; the same seed gives the same map.",
    formula=r"s_j \sim U(0, 1)",
    family="baseline",
    options=(Option("seed", 0, "Of the random numbers; each item of a batch has its own.", "int", low=0),),
    takes_query=False,
    cost="none",
)
def random(request: Request, *, seed: int) -> Answer:
    """Give every real patch a random number."""
    batch, count = _size(request)
    rows = [torch.rand(count, generator=torch.Generator().manual_seed(seed + i)) for i in range(batch)]
    return _answer(request, torch.stack(rows))


@method(
    "centre",
    title="Centre baseline",
    summary="A Gaussian around the middle of the picture: people put what matters there.",
    formula=r"s_{rc} = \exp\!\big(-\tfrac{(y_r^2 + x_c^2)}{2\sigma^2}\big),\quad y, x \in (-\tfrac12, "
    r"\tfrac12)",
    family="baseline",
    options=(
        Option(
            "width",
            0.25,
            "Standard deviation, as a share of the picture's side.",
            "float",
            low=0.01,
            high=10,
        ),
    ),
    takes_query=False,
    cost="none",
)
def centre(request: Request, *, width: float) -> Answer:
    """Give a patch the more the nearer it is to the middle."""
    grid = _grid(request.layout, "centre")
    rows, columns = ((torch.arange(n) + 0.5) / n - 0.5 for n in grid)
    distance = rows[:, None] ** 2 + columns[None, :] ** 2
    flat = torch.exp(-distance / (2 * width**2)).flatten()
    return _answer(request, flat.expand(_size(request)[0], -1))


@method(
    "edges",
    title="Edge baseline",
    summary="How strongly brightness changes within each patch: an edge detector needs no model.",
    formula=r"s_{rc} = \operatorname{mean}_{\text{patch}} \|\nabla\,\text{brightness}\|_2",
    family="baseline",
    paper="Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018 (why it must be shown)",
    bibtex="""@inproceedings{adebayo2018sanity,
  title = {Sanity Checks for Saliency Maps},
  author = {Adebayo, Julius and Gilmer, Justin and Muelly, Michael and Goodfellow, Ian and Hardt, Moritz
            and Kim, Been},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {31},
  year = {2018}
}""",
    options=(
        Option(
            "picture",
            None,
            "What the model saw: a path, image, array or pixel tensor, or a list of one per item.",
        ),
    ),
    takes_query=False,
    cost="one pass over the pixels",
)
def edges(request: Request, *, picture: Any) -> Answer:
    """Give a patch the mean strength of the brightness gradient within it."""
    grid = _grid(request.layout, "edges")
    batch = _size(request)[0]
    if picture is None:
        raise InputError("the method 'edges' needs the picture: explain(record, 'edges', picture=...)")
    shown = _pictures(picture, batch)
    views = request.record.views if len(request.record.views) == batch else (None,) * batch
    maps = [
        _edge_map(one, view, grid, request.layout.patch_size).flatten()
        for one, view in zip(shown, views, strict=True)
    ]
    return _answer(request, torch.stack(maps))


def _size(request: Request) -> tuple[int, int]:
    layout = request.layout
    count = layout.num_patches if layout.grid is not None else layout.num_tokens
    return request.record.layers[0].batch_size, count


def _grid(layout: TokenLayout, name: str) -> tuple[int, int]:
    if layout.grid is None:
        raise LayoutError(f"the method {name!r} needs a patch grid; this stream is text")
    return layout.grid


def _answer(request: Request, flat: Tensor) -> Answer:
    """Put values of the patches at their tokens, 0 on padding, summing to 1 per item and query."""
    layout = request.layout
    every = _checked_query(request, flat.shape[0])
    scores = torch.zeros(flat.shape[0], layout.num_tokens)
    scores[:, layout.patch_slice if layout.grid is not None else slice(None)] = flat.to(scores.dtype)
    if request.seen is not None and request.seen.shape == scores.shape:
        scores = torch.where(request.seen.to(scores.device), scores, 0.0)
    scores = scores * inverse(scores.sum(dim=-1, keepdim=True))[0]
    if every:
        scores = scores[:, None].expand(-1, layout.num_tokens, -1)
    return Answer(scores, query="no query: it knows nothing of the model", notes=(_NOTE,))


def _checked_query(request: Request, batch: int) -> bool:
    """Refuse a query that is not there, though all give the same; tell whether all were asked for."""
    if request.query is None or request.query == "readout":
        return False
    size = request.layout.num_tokens
    kind, device = torch.float32, torch.device("cpu")
    asked = find_starts(
        request.query, request.layout, batch_size=batch, num_queries=size, dtype=kind, device=device
    )
    return asked.every


def _pictures(picture: Any, batch: int) -> list[Any]:
    if isinstance(picture, Tensor) and picture.dim() == 4:
        picture = list(picture)
    several = isinstance(picture, Sequence) and not isinstance(picture, str | bytes)
    shown = list(picture) if several else [picture]
    if len(shown) == 1:
        shown = shown * batch
    if len(shown) != batch:
        raise InputError(f"edges: {len(shown)} pictures for a batch of {batch}")
    return shown


def _edge_map(
    source: Any, view: View | None, grid: tuple[int, int], patch_size: tuple[int, int] | None
) -> Float[Tensor, "height width"]:
    """Average the strength of the brightness gradient over the cells of the grid."""
    if isinstance(source, Tensor):
        brightness = source.detach().float().mean(dim=0)
        if patch_size is not None:
            brightness = brightness[: grid[0] * patch_size[0], : grid[1] * patch_size[1]]
    else:
        pixels = load_picture(source).pixels.astype(np.float32) / 255.0
        brightness = torch.from_numpy(pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32))
        if view is not None:
            brightness = _window(brightness, view.grid_window(grid, patch_size))
    padded = functional.pad(brightness[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    across = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2
    down = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2
    strength = torch.sqrt(across**2 + down**2)
    return functional.adaptive_avg_pool2d(strength[None], grid)[0]


def _window(brightness: Tensor, box: tuple[float, float, float, float]) -> Tensor:
    """Cut a box out of a picture; beyond its border the nearest pixel is repeated."""
    left, top, right, bottom = (round(side) for side in box)
    rows = torch.arange(top, max(bottom, top + 1)).clamp(0, brightness.shape[0] - 1)
    columns = torch.arange(left, max(right, left + 1)).clamp(0, brightness.shape[1] - 1)
    return brightness[rows][:, columns]
