"""Make the composed pictures of this folder again: ``python data/images/make.py``.

Needs scikit-image (for the public-domain portrait that it ships) and Pillow (whose built-in font is
used, so that the lettering is the same everywhere).
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FOLDER = Path(__file__).resolve().parent
INK = (247, 243, 232)
NIGHT = (22, 27, 44)


def poster() -> Image.Image:
    """Return a poster: a title above, the portrait of an astronaut, words below (600x800)."""
    from skimage.data import astronaut

    page = Image.new("RGB", (600, 800), NIGHT)
    portrait = Image.fromarray(np.asarray(astronaut())).resize((520, 520), Image.Resampling.LANCZOS)
    page.paste(portrait, (40, 130))
    write = ImageDraw.Draw(page)
    write.text((300, 66), "EILEEN COLLINS", INK, ImageFont.load_default(66), anchor="mm")
    write.text((300, 724), "A LIFE", INK, ImageFont.load_default(88), anchor="mm")
    return page


def main() -> None:
    """Write every composed picture beside this script."""
    poster().save(FOLDER / "poster.png", optimize=True)
    print(f"wrote {FOLDER / 'poster.png'}")


if __name__ == "__main__":
    main()
