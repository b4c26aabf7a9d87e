"""Compose posters whose parts are known to the pixel: ``python data/images/posters/make_posters.py``.

Every poster is made from a seed: a background, a portrait (or two, or none), a title and words below.
The free sources are pictures that scikit-image ships: the public-domain portrait of an astronaut, the
face crops and the textures of ``skimage.data``. Posters of the development half may be looked at while
finders and wording are tuned; those of the held-out half are for scoring only and use other faces,
words, places and sizes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

FOLDER = Path(__file__).resolve().parent
HALVES = ("development", "held-out")
VARIANTS = ("plain", "moved", "no text", "face hidden", "two faces", "turned text", "no face", "small")
COUNT = 12
ASTRONAUT_FACE = (173, 68, 277, 172)  # by eye, in the 512 x 512 picture
WORDS = {
    "development": (
        ("OPEN AIR", "SUMMER NIGHTS"),
        ("EILEEN COLLINS", "A LIFE"),
        ("The Long Way Home", "a film in two parts"),
        ("CITY LIGHTS", "SINCE 1931"),
        ("Kino am Fluss", "EINTRITT FREI"),
        ("HARVEST FAIR", "14 SEPTEMBER"),
    ),
    "held-out": (
        ("WINTER CONCERT", "ALL WELCOME"),
        ("Northern Rivers", "paintings 1880 to 1920"),
        ("THE QUIET ENGINE", "A NOVEL"),
        ("Grand Opening", "SATURDAY NOON"),
        ("LA MER", "CONCERT DU SOIR"),
        ("VOTE TODAY", "Room 12, second floor"),
    ),
}


@dataclass
class Poster:
    """A composed picture and the truth about it.

    Parameters
    ----------
    name : half, number and variant.
    image : the picture.
    boxes : name of a part -> (left, top, right, bottom): "title", "words below", "face", "face 2".
    words : name of a part -> its words.
    outlines : name of a part -> its corners, for turned words.
    """

    name: str
    image: Image.Image
    boxes: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    outlines: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


def posters(half: str) -> list[Poster]:
    """Return the posters of one half."""
    return [poster(half, number) for number in range(COUNT)]


def poster(half: str, number: int) -> Poster:
    """Return one poster; the same half and number always give the same one."""
    rng = np.random.default_rng([HALVES.index(half), number, 20261122])
    variant = VARIANTS[number % len(VARIANTS)]
    width, height = (int(rng.integers(460, 760)), int(rng.integers(620, 900)))
    if variant == "small":
        width, height = width // 2, height // 2
    made = Poster(f"{half}-{number:02d}-{variant.replace(' ', '-')}", _background(rng, (width, height), half))
    top = int(0.2 * height)
    if variant == "no face":
        _thing(made, rng, top)
    elif variant == "two faces":
        side = int(0.4 * width)
        _face(made, "face", rng, half, (int(0.07 * width), top), side)
        _face(made, "face 2", rng, half, (int(0.53 * width), top + int(rng.integers(0, 60))), side)
    else:
        side = int(rng.uniform(0.55, 0.75) * width)
        left = int(rng.uniform(0.05, 0.95) * (width - side))
        _face(made, "face", rng, half, (left, top), side, astronaut=number % 3 != 2)
    if variant == "face hidden":
        box = made.boxes.pop("face")
        grown = _grown(box, 0.25 if number % 3 != 2 else 0.0)
        ImageDraw.Draw(made.image).rectangle(grown, fill=tuple(int(c) for c in rng.integers(60, 200, 3)))
    if variant != "no text":
        title, foot = WORDS[half][number % len(WORDS[half])]
        ink = _ink(made.image)
        places = {"title": 0.1, "words below": 0.88}
        if variant == "moved":
            places = {"title": 0.9, "words below": 0.1}
        angle = float(rng.uniform(5, 12)) if variant == "turned text" else 0.0
        _write(made, "title", title, places["title"], 0.86, ink, angle)
        _write(made, "words below", foot, places["words below"], float(rng.uniform(0.4, 0.7)), ink, 0.0)
    return made


def truth_masks(made: Poster) -> dict[str, np.ndarray]:
    """Return the true mask of every part, boolean [height, width]."""
    masks = {}
    for name, (left, top, right, bottom) in made.boxes.items():
        canvas = Image.new("1", made.image.size)
        if name in made.outlines:
            ImageDraw.Draw(canvas).polygon(made.outlines[name], fill=1)
        else:
            ImageDraw.Draw(canvas).rectangle((left, top, right - 1, bottom - 1), fill=1)
        masks[name] = np.asarray(canvas)
    return masks


def _background(rng: np.random.Generator, size: tuple[int, int], half: str) -> Image.Image:
    from skimage import data

    dark = rng.random() < 0.6
    colour = rng.integers(10, 70, 3) if dark else rng.integers(190, 245, 3)
    page = np.ones((size[1], size[0], 3)) * colour
    kind = int(rng.integers(3))
    if kind == 1:
        page = page + np.linspace(-25, 25, size[1])[:, None, None]
    if kind == 2:
        texture = {"development": data.brick, "held-out": data.gravel}[half]()
        tile = np.asarray(
            Image.fromarray(texture).resize(size).filter(ImageFilter.GaussianBlur(2)), dtype=float
        )
        page = page + (tile - tile.mean())[..., None] * 0.15
    return Image.fromarray(np.clip(page, 0, 255).astype(np.uint8))


def _face(
    made: Poster,
    name: str,
    rng: np.random.Generator,
    half: str,
    corner: tuple[int, int],
    side: int,
    *,
    astronaut: bool = False,
) -> None:
    from skimage import data

    if astronaut:
        source = Image.fromarray(data.astronaut())
        left, top, right, bottom = ASTRONAUT_FACE
        if half == "held-out":
            source = source.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            left, right = 512 - right, 512 - left
        scale = side / 512
        box = tuple(round(corner[i % 2] + edge * scale) for i, edge in enumerate((left, top, right, bottom)))
    else:
        number = int(rng.integers(0, 50)) + (50 if half == "held-out" else 0)
        source = Image.fromarray((data.lfw_subset()[number] * 255).astype(np.uint8)).convert("RGB")
        box = (corner[0], corner[1], corner[0] + side, corner[1] + side)
    pasted = source.resize((side, side), Image.Resampling.BICUBIC)
    made.image.paste(pasted, corner)
    made.boxes[name] = (box[0], box[1], box[2], box[3])


def _thing(made: Poster, rng: np.random.Generator, top: int) -> None:
    from skimage import data

    source = (data.coffee, data.rocket, data.chelsea)[int(rng.integers(3))]()
    width = int(0.8 * made.image.width)
    thing = Image.fromarray(source)
    thing = thing.resize((width, round(width * thing.height / thing.width)), Image.Resampling.BICUBIC)
    made.image.paste(thing, (int(0.1 * made.image.width), top))


def _write(
    made: Poster, name: str, words: str, middle: float, wide: float, ink: tuple[int, int, int], angle: float
) -> None:
    """Write words across ``wide`` of the width, with their middle at ``middle`` of the height."""
    size = 20
    while ImageFont.load_default(size).getlength(words) < wide * made.image.width and size < 90:
        size += 2
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(words)
    stamp = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
    ImageDraw.Draw(stamp).text((1 - left, 1 - top), words, 255, font)
    corners = np.array(
        [(0, 0), (stamp.width, 0), (stamp.width, stamp.height), (0, stamp.height)], dtype=float
    )
    centre = np.array([made.image.width / 2, middle * made.image.height])
    turn = np.deg2rad(-angle)
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    outline = (corners - corners[2] / 2) @ spin.T + centre
    if angle:
        stamp = stamp.rotate(angle, expand=True, resample=Image.Resampling.BICUBIC)
    place = (round(centre[0] - stamp.width / 2), round(centre[1] - stamp.height / 2))
    made.image.paste(Image.new("RGB", stamp.size, ink), place, stamp)
    made.boxes[name] = (place[0], place[1], place[0] + stamp.width, place[1] + stamp.height)
    made.words[name] = words
    if angle:
        made.outlines[name] = [(float(x), float(y)) for x, y in outline]


def _ink(page: Image.Image) -> tuple[int, int, int]:
    return (245, 240, 228) if np.asarray(page.crop((0, 0, page.width, 40))).mean() < 120 else (24, 24, 30)


def _grown(box: tuple[int, int, int, int], part: float) -> tuple[int, int, int, int]:
    wide, tall = round(part * (box[2] - box[0])), round(part * (box[3] - box[1]))
    return box[0] - wide, box[1] - tall, box[2] + wide, box[3] + tall


def main() -> None:
    """Write two posters of the development half beside this script; the others are made when needed."""
    for number in (0, 1):
        made = poster("development", number)
        made.image.save(FOLDER / f"{made.name}.jpg", quality=90)
        print(f"wrote {made.name}.jpg: {made.boxes}")


if __name__ == "__main__":
    main()
