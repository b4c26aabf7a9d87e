"""The pictures that come with attnlib."""

from __future__ import annotations

from pathlib import Path

from attnlib.errors import PictureError

__all__ = ["sample", "samples"]

_SUFFIXES = (".png", ".jpg")


def samples() -> dict[str, Path]:
    """Return the pictures that come with attnlib: name -> file."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_images", package.parent / "data" / "images"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix in _SUFFIXES}
    return {}


def sample(name: str) -> Path:
    """Return the file of a picture that comes with attnlib, such as "poster".

    Raises
    ------
    PictureError
        If there is no such picture.
    """
    found = samples()
    if name not in found:
        raise PictureError(f"there is no sample picture {name!r}; there are {sorted(found)}")
    return found[name]
