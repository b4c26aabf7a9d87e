"""Make the pictures of this folder again: ``python data/images/make.py``.

Needs scikit-image (for the free photographs that it ships) and Pillow (whose built-in font is used,
so that the lettering is the same everywhere). SOURCES.md says where each picture comes from.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FOLDER = Path(__file__).resolve().parent
PAPER = (247, 243, 232)
NIGHT = (22, 27, 44)


def photograph(name: str) -> Image.Image:
    """Return a photograph that scikit-image ships."""
    from skimage import data

    return Image.fromarray(np.asarray(getattr(data, name)()))


def poster() -> Image.Image:
    """Return a poster: a title above, the portrait of an astronaut, words below (600x800)."""
    page = Image.new("RGB", (600, 800), NIGHT)
    page.paste(photograph("astronaut").resize((520, 520), Image.Resampling.LANCZOS), (40, 130))
    write = ImageDraw.Draw(page)
    write.text((300, 66), "EILEEN COLLINS", PAPER, ImageFont.load_default(66), anchor="mm")
    write.text((300, 724), "A LIFE", PAPER, ImageFont.load_default(88), anchor="mm")
    return page


def banner() -> Image.Image:
    """Return a wide banner: a rocket launch on the left, words on the right (960x320)."""
    page = Image.new("RGB", (960, 320), NIGHT)
    launch = photograph("rocket").resize((480, 320), Image.Resampling.LANCZOS)
    page.paste(launch, (0, 0))
    write = ImageDraw.Draw(page)
    write.text((720, 120), "NIGHT LAUNCH", PAPER, ImageFont.load_default(56), anchor="mm")
    write.text((720, 205), "open to all", PAPER, ImageFont.load_default(40), anchor="mm")
    return page


def drawing() -> Image.Image:
    """Return a child's drawing: a house, a tree, a person, the sun (480x360), drawn at twice its size."""
    page = Image.new("RGB", (960, 720), (252, 250, 244))
    draw = ImageDraw.Draw(page)
    ink = {"fill": (40, 40, 46), "width": 8}
    draw.line((0, 600, 300, 588, 640, 606, 960, 594), fill=(88, 140, 72), width=10)
    draw.ellipse((760, 60, 900, 200), fill=(244, 196, 48), outline=(220, 160, 30), width=6)
    for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False):
        x, y = np.cos(angle), np.sin(angle)
        draw.line((830 + 86 * x, 130 + 86 * y, 830 + 120 * x, 130 + 120 * y), fill=(220, 160, 30), width=7)
    draw.rectangle((120, 360, 400, 596), fill=(222, 180, 140), outline=ink["fill"], width=8)
    draw.polygon((90, 364, 260, 210, 430, 364), fill=(176, 64, 52), outline=ink["fill"], width=8)
    draw.rectangle((230, 470, 300, 596), fill=(110, 74, 52), outline=ink["fill"], width=6)
    for left in (145, 325):
        draw.rectangle((left, 400, left + 54, 454), fill=(168, 208, 232), outline=ink["fill"], width=6)
    draw.rectangle((530, 420, 566, 600), fill=(120, 84, 56))
    draw.ellipse((450, 240, 646, 450), fill=(96, 152, 80), outline=(60, 104, 52), width=8)
    draw.ellipse((722, 372, 798, 448), fill=(252, 226, 200), outline=ink["fill"], width=7)
    draw.line((760, 448, 760, 540), **ink)
    draw.line((706, 480, 760, 470, 814, 480), **ink)
    draw.line((720, 602, 760, 540, 800, 602), **ink)
    draw.arc((742, 400, 778, 434), 20, 160, fill=ink["fill"], width=5)
    for left in (744, 770):
        draw.ellipse((left, 396, left + 7, 403), fill=ink["fill"])
    return page.resize((480, 360), Image.Resampling.LANCZOS)


def main() -> None:
    """Write every picture beside this script."""
    for make in (poster, banner, drawing):
        make().save(FOLDER / f"{make.__name__}.png", optimize=True)
    photograph("chelsea").save(FOLDER / "cat.jpg", quality=92)
    photograph("coffee").save(FOLDER / "coffee.jpg", quality=90)
    print(f"wrote the pictures to {FOLDER}")


if __name__ == "__main__":
    main()
