"""What generated scenes are drawn with: shapes, faces, letters and textures, each with an exact mask.

Edges are hard (a pixel belongs to a thing or it does not), so that a mask is the truth and no
estimate of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files

import numpy as np
from PIL import Image

__all__ = [
    "CLASS_COLORS",
    "DECOY_COLORS",
    "LETTERS",
    "SHAPES",
    "background",
    "blob",
    "cartoon_face",
    "letters",
    "portrait",
    "shape_mask",
]

Array = np.ndarray
Sprite = tuple[Array, Array, Mapping[str, Array]]
"""Pixels [height, width, 3], mask [height, width], and the masks of named parts."""

CLASS_COLORS: Mapping[str, tuple[int, int, int]] = {
    "disc": (214, 40, 40),
    "ring": (40, 165, 60),
    "square": (45, 80, 220),
    "triangle": (150, 45, 180),
    "cross": (243, 130, 25),
    "star": (25, 190, 205),
}
"""Every shape has a colour of its own, so that even a very small model can learn it in minutes."""
DECOY_COLORS = ((20, 20, 22), (240, 240, 238), (110, 70, 40), (245, 150, 190))
"""Colours that belong to no class: black, white, brown, pink."""

# glyphs of 5x7 pixels: one byte per column, lowest bit on top
_GLYPHS = {
    "A": "7E1111117E", "B": "7F49494936", "C": "3E41414122", "D": "7F4141221C", "E": "7F49494941",
    "F": "7F09090901", "G": "3E4149497A", "H": "7F0808087F", "I": "00417F4100", "J": "2040413F01",
    "K": "7F08142241", "L": "7F40404040", "M": "7F020C027F", "N": "7F0408107F", "O": "3E4141413E",
    "P": "7F09090906", "Q": "3E4151215E", "R": "7F09192946", "S": "4649494931", "T": "01017F0101",
    "U": "3F4040403F", "V": "1F2040201F", "W": "3F4038403F", "X": "6314081463", "Y": "0708700807",
    "Z": "6151494543", " ": "0000000000",
}  # fmt: skip
LETTERS = frozenset(_GLYPHS)
"""What can be written."""


def _disc(u: Array, v: Array) -> Array:
    return u**2 + v**2 <= 0.92


def _ring(u: Array, v: Array) -> Array:
    radius = u**2 + v**2
    return (radius <= 0.95) & (radius >= 0.3)


def _square(u: Array, v: Array) -> Array:
    return np.maximum(abs(u), abs(v)) <= 0.8


def _triangle(u: Array, v: Array) -> Array:
    return (v <= 0.75) & (abs(u) <= (v + 0.95) * 0.55)


def _cross(u: Array, v: Array) -> Array:
    near, far = np.minimum(abs(u), abs(v)), np.maximum(abs(u), abs(v))
    return (near <= 0.27) & (far <= 0.95)


def _star(u: Array, v: Array) -> Array:
    angle = np.mod(np.arctan2(u, -v), 2 * np.pi / 5)
    folded = np.minimum(angle, 2 * np.pi / 5 - angle)
    radius = np.sqrt(u**2 + v**2)
    # the straight edge from a tip (radius 1, angle 0) to a notch (radius 0.4, angle pi / 5)
    tip, notch = 1.0, 0.4
    x, y = radius * np.cos(folded), radius * np.sin(folded)
    end_x, end_y = notch * np.cos(np.pi / 5), notch * np.sin(np.pi / 5)
    return (end_x - tip) * y - end_y * (x - tip) >= 0


SHAPES: Mapping[str, Callable[[Array, Array], Array]] = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
}


def _coordinates(size: int, turn: float = 0.0) -> tuple[Array, Array]:
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    v, u = np.meshgrid(axis, axis, indexing="ij")
    return u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)


def shape_mask(name: str, size: int, turn: float = 0.0) -> Array:
    """Return the mask of a shape of :data:`SHAPES`, ``size`` pixels square, turned by ``turn`` radians."""
    return SHAPES[name](*_coordinates(size, turn))


def blob(size: int, rng: np.random.Generator) -> Array:
    """Return the mask of an irregular patch that is none of the shapes."""
    u, v = _coordinates(size)
    angle, limit = np.arctan2(v, u), np.full(u.shape, 0.55)
    for wave in (2, 3, 5):
        limit = limit + rng.uniform(0.05, 0.2) * np.cos(wave * angle + rng.uniform(0, 6.28))
    return u**2 + v**2 <= np.clip(limit, 0.2, 0.95) ** 2


def cartoon_face(size: int, skin: tuple[int, int, int]) -> Sprite:
    """Draw a face-like disc: two eyes and a mouth, which are its parts."""
    u, v = _coordinates(size)
    mask = u**2 + (v * 0.95) ** 2 <= 0.92
    left = ((u + 0.36) / 0.2) ** 2 + ((v + 0.25) / 0.2) ** 2 <= 1
    right = ((u - 0.36) / 0.2) ** 2 + ((v + 0.25) / 0.2) ** 2 <= 1
    arc = (u**2 + v**2 <= 0.5) & (u**2 + v**2 >= 0.22) & (v >= 0.22)
    pixels = np.empty((size, size, 3), np.uint8)
    pixels[:] = skin
    pixels[left | right | arc] = (25, 20, 25)
    return pixels, mask, {"left eye": left, "right eye": right, "mouth": arc}


@cache
def _portrait_source() -> Array:
    with files("attnlib.evaluate").joinpath("portrait.png").open("rb") as file:
        return np.asarray(Image.open(file).convert("RGB"))


def portrait(size: int, *, mirrored: bool = False, light: float = 1.0) -> Sprite:
    """Draw a real portrait (NASA, Eileen Collins, public domain); its parts are eyes, nose and mouth."""
    source = _portrait_source().astype(np.float32)
    at = (np.arange(size) + 0.5) / size * source.shape[0] - 0.5
    low = np.clip(np.floor(at).astype(int), 0, source.shape[0] - 2)
    blend = np.clip(at - low, 0, 1).astype(np.float32)
    rows = source[low] * (1 - blend)[:, None, None] + source[low + 1] * blend[:, None, None]
    pixels = rows[:, low] * (1 - blend)[None, :, None] + rows[:, low + 1] * blend[None, :, None]
    x, y = np.meshgrid((np.arange(size) + 0.5) / size, (np.arange(size) + 0.5) / size)

    def ellipse(centre_x: float, centre_y: float, half_x: float, half_y: float) -> Array:
        return ((x - centre_x) / half_x) ** 2 + ((y - centre_y) / half_y) ** 2 <= 1

    mask = ellipse(0.494, 0.5, 0.46, 0.475)
    parts = {
        "left eye": ellipse(0.34, 0.43, 0.08, 0.05),
        "right eye": ellipse(0.61, 0.445, 0.08, 0.05),
        "nose": ellipse(0.48, 0.565, 0.075, 0.075),
        "mouth": ellipse(0.474, 0.706, 0.15, 0.06),
    }
    if mirrored:
        pixels, mask = pixels[:, ::-1], mask[:, ::-1]
        parts = {name: part[:, ::-1] for name, part in parts.items()}
        parts["left eye"], parts["right eye"] = parts["right eye"], parts["left eye"]
    return np.clip(np.rint(pixels * light), 0, 255).astype(np.uint8), mask, parts


def letters(text: str, scale: int) -> Array:
    """Return the mask of a word in capital letters of 5x7 dots, each ``scale`` pixels square."""
    columns: list[int] = []
    for letter in text.upper():
        columns += [*bytes.fromhex(_GLYPHS[letter]), 0]
    bits = (np.array(columns[:-1])[None, :] >> np.arange(7)[:, None]) & 1
    return np.repeat(np.repeat(bits.astype(bool), scale, axis=0), scale, axis=1)


def background(size: int, rng: np.random.Generator) -> Array:
    """Return a muted texture: cloud, stripes, checks or grain, uint8 [size, size, 3]."""
    first, second = (rng.uniform(70, 190) + rng.uniform(-22, 22, 3) for _ in range(2))
    kind = int(rng.integers(4))
    row, column = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    period = rng.uniform(5, 14) * size / 96
    if kind == 0:
        weight = _cloud(size, int(rng.integers(3, 8)), rng)
    elif kind == 1:
        turn = rng.uniform(0, np.pi)
        wave = (row * np.sin(turn) + column * np.cos(turn)) / period
        weight = (np.mod(wave, 1) < 0.5).astype(np.float64)
    elif kind == 2:
        weight = np.mod(row // period + column // period, 2)
    else:
        weight = np.full((size, size), 0.5)
    pixels = first * weight[..., None] + second * (1 - weight[..., None])
    grain = rng.normal(0, rng.uniform(2, 14), (size, size, 1))
    return np.clip(np.rint(pixels + grain), 0, 255).astype(np.uint8)


def _cloud(size: int, cells: int, rng: np.random.Generator) -> Array:
    """Return smooth noise in [0, 1]: random values on a coarse grid, blended linearly."""
    values = rng.uniform(0, 1, (cells + 1, cells + 1))
    at = np.arange(size) / size * cells
    low, blend = np.floor(at).astype(int), at - np.floor(at)
    rows = values[low] * (1 - blend)[:, None] + values[low + 1] * blend[:, None]
    return rows[:, low] * (1 - blend) + rows[:, low + 1] * blend
