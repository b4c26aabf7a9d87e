"""The small models that were trained for attnlib: any folder of data/models with a config is a name."""

from __future__ import annotations

import re
from pathlib import Path

from attnlib.models.loaded import ModelCard

__all__ = ["trained_cards", "trained_folders"]


def trained_folders() -> dict[str, Path]:
    """Return name -> folder of the small trained models, from the wheel or from the checkout."""
    package = Path(__file__).resolve().parents[1]
    for home in (package / "_trained", package.parent / "data" / "models"):
        if home.is_dir():
            return {f.name: f for f in sorted(home.iterdir()) if (f / "config.json").is_file()}
    return {}


def trained_cards() -> dict[str, ModelCard]:
    """Return what the small trained models are, from the cards that lie in their folders."""
    return {name: _card(name, folder) for name, folder in trained_folders().items()}


def _card(name: str, folder: Path) -> ModelCard:
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    front, _, body = text.partition("\n---\n") if text.startswith("---\n") else ("", "", text)
    licence = re.search(r"^license:\s*(\S+)", front, re.MULTILINE)
    lines = [line.strip() for line in body.splitlines() if line.strip() and not line.startswith("#")]
    summary = lines[0].rstrip(".") if lines else "a small model trained on generated scenes"
    return ModelCard(
        name, summary, "trained for attnlib on generated data", licence[1].upper() if licence else "MIT"
    )
