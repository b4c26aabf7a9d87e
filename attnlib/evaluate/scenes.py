"""Generated scenes in which every thing has an exact mask: the known truth that maps are measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from attnlib.errors import InputError
from attnlib.evaluate.drawing import (
    CLASS_COLORS,
    DECOY_COLORS,
    LETTERS,
    SHAPES,
    Sprite,
    background,
    blob,
    cartoon_face,
    letters,
    portrait,
    shape_mask,
)
from attnlib.picture import Picture
from attnlib.regions import Region, Regions

__all__ = ["CLASSES", "WORDS", "Scene", "Thing", "grid_scene", "make_scene", "make_scenes"]

CLASSES = (*SHAPES, "face", "portrait")
"""What the classifiers tell apart; a scene holds one to three of them."""
WORDS = ("SUN", "TEA", "OWL", "FOX")
"""Words that may be written into a scene."""
WATERMARK = "IMGX"
"""Text of the planted shortcut."""
_STAMP = (225, 20, 140)
STYLES = ("plain", "striped")
"""How a shape is filled; captions say it."""
_SKIN = ((250, 220, 70), (250, 205, 95))


@dataclass(frozen=True, eq=False)
class Thing:
    """One thing in a scene.

    Parameters
    ----------
    name : its class, the word, "decoy" or "watermark".
    kind : "object", "word", "decoy" or "watermark".
    mask : exactly the pixels that show it, boolean [height, width].
    style : "plain" or "striped" for shapes, otherwise "".
    parts : masks of its parts, such as "left eye" of a face.
    """

    name: str
    kind: str
    mask: np.ndarray
    style: str = ""
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def phrase(self) -> str:
        """How a caption calls it, such as "a striped star"."""
        if self.kind == "word":
            return f"the word {self.name.lower()}"
        return f"a {self.style} {self.name}" if self.style else f"a {self.name}"


@dataclass(frozen=True, eq=False)
class Scene:
    """A generated picture with its truth.

    Parameters
    ----------
    pixels : uint8 RGB, [height, width, 3].
    things : everything that was drawn on the background, in drawing order; masks do not overlap.
    seed, index : what the scene was made from.
    """

    pixels: np.ndarray
    things: tuple[Thing, ...]
    seed: int
    index: int

    @property
    def labels(self) -> tuple[str, ...]:
        """Classes that the scene shows, in the order of :data:`CLASSES`."""
        shown = {thing.name for thing in self.things if thing.kind == "object"}
        return tuple(name for name in CLASSES if name in shown)

    @property
    def caption(self) -> str:
        """Objects and words from left to right, such as "a striped star and the word sun"."""
        told = [thing for thing in self.things if thing.kind in ("object", "word")]
        told.sort(key=lambda thing: float(np.nonzero(thing.mask)[1].mean()))
        return " and ".join(thing.phrase for thing in told)

    @property
    def picture(self) -> Picture:
        """The scene as a :class:`~attnlib.picture.Picture`."""
        return Picture(self.pixels, name=f"scene-{self.seed}-{self.index}")

    def mask(self, name: str) -> np.ndarray:
        """Return the pixels of everything called ``name`` (a class, a word, "decoy" or "watermark").

        Raises
        ------
        InputError
            If the scene shows no such thing.
        """
        masks = [thing.mask for thing in self.things if thing.name == name]
        if not masks:
            shown = sorted({thing.name for thing in self.things})
            raise InputError(f"the scene shows no {name!r}; it shows {shown}")
        return np.any(masks, axis=0)

    def regions(self) -> Regions:
        """Return everything in the scene, parts included, as named regions of the picture."""
        items = []
        for number, thing in enumerate(self.things):
            name = thing.name if thing.name != "decoy" else f"decoy {number + 1}"
            kind = {"word": "text", "object": "face" if thing.parts else "mask"}.get(thing.kind, "mask")
            items += [
                Region(f"{part} of the {name}", mask.astype(np.float32), "face part", "generated")
                for part, mask in thing.parts.items()
            ]
            items.append(Region(name, thing.mask.astype(np.float32), kind, "generated"))
        size = self.pixels.shape[0], self.pixels.shape[1]
        return Regions(tuple(items), size, ("masks are exact: the scene was generated",))


def make_scene(
    seed: int,
    index: int = 0,
    *,
    size: int = 96,
    classes: Sequence[str] | None = None,
    words: Sequence[str] | None = None,
    decoys: int | None = None,
    watermark: bool = False,
) -> Scene:
    """Draw one scene; the same arguments give the same bytes.

    Parameters
    ----------
    seed, index : choose the scene; ``index`` counts scenes of one seed.
    size : pixels per side, 96 to 224 (the things grow with it).
    classes : classes to show; drawn at random (one to three) if omitted.
    words : words to write; at random (none or one) if omitted.
    decoys : number of irregular patches that belong to no class; one or two if omitted.
    watermark : stamp the small, slightly transparent mark of the shortcut into a corner.

    Raises
    ------
    InputError
        If the size, a class or a word is outside what can be drawn, a number is negative, or the things do
        not fit.
    """
    if not 96 <= size <= 224:
        raise InputError(f"scenes are 96 to 224 pixels a side, got size={size}")
    if min(seed, index, decoys or 0) < 0:
        raise InputError(f"seed, index and decoys are 0 or more, got {seed}, {index} and {decoys}")
    classes, words = ([one] if isinstance(one, str) else one for one in (classes, words))
    rng = np.random.default_rng([seed, index, 5])
    if classes is None:
        classes = [CLASSES[i] for i in rng.permutation(len(CLASSES))[: rng.integers(1, 4)]]
    if words is None:
        words = [WORDS[rng.integers(len(WORDS))]] if rng.random() < 0.4 else []
    if decoys is None:
        decoys = int(rng.integers(1, 3))
    unknown = [name for name in classes if name not in CLASSES]
    if unknown:
        raise InputError(f"unknown classes {unknown}; there are {list(CLASSES)}")
    foreign = [word for word in words if not word or not set(word.upper()) <= LETTERS]
    if foreign:
        raise InputError(f"words are written in the letters A to Z and blanks, got {foreign}")
    canvas = _Canvas(background(size, rng), rng)
    if watermark:
        canvas.stamp_watermark()
    for name in classes:
        canvas.place_object(name)
    for word in words:
        canvas.place_word(word)
    for _ in range(decoys):
        canvas.place_decoy()
    return Scene(canvas.pixels, tuple(canvas.things), seed, index)


def make_scenes(
    count: int,
    *,
    seed: int = 0,
    start: int = 0,
    size: int = 96,
    classes: Sequence[str] | None = None,
    words: Sequence[str] | None = None,
    decoys: int | None = None,
    watermark: bool = False,
) -> Iterator[Scene]:
    """Return an iterator over ``count`` scenes of one seed, from number ``start`` on.

    The scenes are drawn one by one as they are asked for; options as for :func:`make_scene`.

    Raises
    ------
    InputError
        At once if ``count`` is below 1; as for :func:`make_scene` when a scene is drawn.
    """
    if count < 1:
        raise InputError(f"make_scenes draws one scene or more, got count={count}")
    return (
        make_scene(seed, index, size=size, classes=classes, words=words, decoys=decoys, watermark=watermark)
        for index in range(start, start + count)
    )


def grid_scene(seed: int, index: int = 0, *, size: int = 96, classes: Sequence[str] | None = None) -> Scene:
    """Draw a 2x2 grid of four different classes; the mask of each class is its whole quarter.

    The truth of the grid pointing game: whatever speaks for a class stands in its quarter.

    Raises
    ------
    InputError
        If ``classes`` are not four different ones.
    """
    rng = np.random.default_rng([seed, index, 22])
    if classes is None:
        classes = [CLASSES[i] for i in rng.permutation(len(CLASSES))[:4]]
    if len(set(classes)) != 4:
        raise InputError(f"a grid scene needs four different classes, got {list(classes)}")
    if size % 2:
        raise InputError(f"a grid scene needs an even size, got {size}")
    half = size // 2
    pixels, things = np.empty((size, size, 3), np.uint8), []
    for quarter, name in enumerate(classes):
        top, left = quarter // 2 * half, quarter % 2 * half
        canvas = _Canvas(background(half, rng), rng, unit=size)
        canvas.place_object(name)
        mask = np.zeros((size, size), bool)
        mask[top : top + half, left : left + half] = True
        pixels[top : top + half, left : left + half] = canvas.pixels
        things.append(Thing(name, "object", mask, canvas.things[0].style))
    return Scene(pixels, tuple(things), seed, index)


class _Canvas:
    """A picture being drawn: finds free places and keeps the masks."""

    def __init__(self, pixels: np.ndarray, rng: np.random.Generator, unit: int | None = None) -> None:
        self.pixels, self.rng = pixels, rng
        self.things: list[Thing] = []
        self.side = pixels.shape[0]
        self.scale = (unit or self.side) / 96
        self.taken = np.zeros((self.side, self.side), bool)

    def place_object(self, name: str) -> None:
        size = round(self.rng.uniform(24, 34) * self.scale)
        style = ""
        if name == "face":
            skin = _SKIN[self.rng.integers(len(_SKIN))]
            place, (pixels, mask, parts) = self._fit(size, lambda side: cartoon_face(side, skin))
        elif name == "portrait":
            mirrored, light = bool(self.rng.random() < 0.5), float(self.rng.uniform(0.8, 1.1))
            place, (pixels, mask, parts) = self._fit(
                size, lambda side: portrait(side, mirrored=mirrored, light=light)
            )
        else:
            paint = self._shade(CLASS_COLORS[name])
            turn = float(self.rng.uniform(-0.25, 0.25))
            style = STYLES[self.rng.integers(2)]
            period = 0 if style == "plain" else max(2, round(3 * self.scale))
            place, (pixels, mask, parts) = self._fit(
                size, lambda side: _filled(shape_mask(name, side, turn), paint, period)
            )
        self._draw(name, "object", place, pixels, mask, style, parts)

    def place_word(self, word: str) -> None:
        dark = self.rng.random() < 0.5
        paint = np.array((15, 15, 20) if dark else (245, 245, 240))
        dots = max(1, round(1.6 * self.scale))
        place, (pixels, mask, parts) = self._fit(
            dots, lambda scale: _filled(letters(word, max(1, scale)), paint)
        )
        self._draw(word, "word", place, pixels, mask, "", parts)

    def place_decoy(self) -> None:
        paint = self._shade(DECOY_COLORS[self.rng.integers(len(DECOY_COLORS))])
        size = round(self.rng.uniform(14, 24) * self.scale)
        seed = int(self.rng.integers(2**31))
        place, (pixels, mask, parts) = self._fit(
            size, lambda side: _filled(blob(side, np.random.default_rng(seed)), paint)
        )
        self._draw("decoy", "decoy", place, pixels, mask, "", parts)

    def stamp_watermark(self) -> None:
        text = np.pad(letters(WATERMARK, max(1, round(self.scale))), max(2, round(2 * self.scale)))
        height, width = text.shape
        gap = max(1, round(2 * self.scale))
        low, left = bool(self.rng.random() < 0.5), bool(self.rng.random() < 0.5)
        top = self.side - height - gap if low else gap
        start = gap if left else self.side - width - gap
        area = self.pixels[top : top + height, start : start + width].astype(np.int32)
        ink = np.where(text[..., None], 255, np.array(_STAMP))
        marked = ((area + 3 * ink) // 4).astype(np.uint8)
        box = np.ones((height, width), bool)
        self._draw("watermark", "watermark", (top, start), marked, box, "", {})

    def _shade(self, color: tuple[int, int, int]) -> np.ndarray:
        return np.clip(np.array(color) + self.rng.integers(-18, 19, 3), 0, 255)

    def _fit(self, size: int, make: Callable[[int], Sprite]) -> tuple[tuple[int, int], Sprite]:
        """Draw a sprite and find a free place for it, smaller and smaller until there is one."""
        for _ in range(12):
            sprite = make(size)
            height, width = sprite[1].shape
            margin = max(1, round(self.scale))
            if height < self.side and width < self.side:
                for _ in range(40):
                    top = int(self.rng.integers(self.side - height + 1))
                    left = int(self.rng.integers(self.side - width + 1))
                    around = self.taken[
                        max(0, top - margin) : top + height + margin,
                        max(0, left - margin) : left + width + margin,
                    ]
                    if not around.any():
                        return (top, left), sprite
            size = max(1, min(size - 1, round(size * 0.88)))
        raise InputError("the things do not fit into the scene: ask for fewer, or a larger size")

    def _draw(
        self,
        name: str,
        kind: str,
        place: tuple[int, int],
        pixels: np.ndarray,
        mask: np.ndarray,
        style: str,
        parts: Mapping[str, np.ndarray],
    ) -> None:
        top, left = place
        height, width = mask.shape
        window = slice(top, top + height), slice(left, left + width)
        self.pixels[window][mask] = pixels[mask]
        self.taken[window] = True

        def whole(part: np.ndarray) -> np.ndarray:
            full = np.zeros((self.side, self.side), bool)
            full[window] = part & mask
            return full

        named = {part: whole(shape) for part, shape in parts.items()}
        self.things.append(Thing(name, kind, whole(mask), style, named))


def _filled(mask: np.ndarray, paint: np.ndarray, period: int = 0) -> Sprite:
    """Return a mask in one colour, or (with a period) with lighter stripes across it."""
    pixels = np.empty((*mask.shape, 3), np.uint8)
    pixels[:] = paint
    if period:
        pixels[(np.arange(mask.shape[0]) // period) % 2 == 1] = (paint.astype(int) + 2 * 255) // 3
    return pixels, mask, {}
