"""Preparers of transformers models: pictures, texts, both, and captions."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from attnlib.errors import InputError, PictureError
from attnlib.layout import TokenLayout
from attnlib.models.loaded import Prepared
from attnlib.models.measured_view import measure_view
from attnlib.models.pixels import PatchProcessor, only_pictures
from attnlib.models.texts import only_texts, token_labels, tokenize
from attnlib.picture import View

__all__ = ["CaptionPreparer", "PairPreparer", "PicturePreparer", "TextPreparer", "UnknownPreparer"]

Size = int | tuple[int, int] | None


class PicturePreparer:
    """Prepares pictures as the model's own processor does, or with their aspect kept.

    The aspect is kept where the model interpolates its positions by itself, and where a size is asked
    for and the model can interpolate on request. Otherwise the processor of the model decides, and
    what it crops or pads is measured and told.
    """

    def __init__(self, processor: Any, model: nn.Module) -> None:
        self.processor = processor
        self.free, self.on_request = _interpolates(model)
        self.patches = _patch_processor(processor, model)
        self._views: dict[tuple[int, int], View] = {}

    def __call__(
        self, sources: Sequence[Any], *, size: Size = None, texts: Sequence[str] | None = None
    ) -> Prepared:
        """Prepare a batch of pictures."""
        if self.patches is not None and (self.free or (size is not None and self.on_request)):
            prepared = self.patches(sources, size=size, texts=texts)
            extra = {} if self.free else {"interpolate_pos_encoding": True}
            return Prepared({**prepared.inputs, **extra}, prepared.views)
        if size is not None:
            raise InputError(
                f"this model takes one size of picture, the one its processor makes; got size={size}. "
                "Leave size out"
            )
        pictures = only_pictures(sources, texts)
        values = [self._pixels(picture.to_pil()) for picture in pictures]
        views = [
            self._view(picture.size, value.shape[-2:])
            for picture, value in zip(pictures, values, strict=True)
        ]
        if len({value.shape for value in values}) > 1:
            raise PictureError(
                f"pictures of different shapes cannot share a batch: they would become "
                f"{[list(value.shape) for value in values]}; pass them one by one"
            )
        return Prepared({"pixel_values": torch.from_numpy(np.stack(values))}, tuple(views))

    def _pixels(self, image: Image.Image) -> np.ndarray:
        values = np.asarray(self.processor(images=[image], return_tensors="pt")["pixel_values"])
        if values.ndim != 4 or values.shape[0] != 1:
            raise PictureError(
                f"the processor of this model cuts pictures into pieces (it returned {list(values.shape)}); "
                "a map over pieces cannot be drawn over the picture. Prepare tensors yourself and call "
                "capture(model.model, inputs)"
            )
        return values[0].astype(np.float32)

    def _view(self, picture_size: tuple[int, int], input_size: tuple[int, ...]) -> View:
        if picture_size not in self._views:
            self._views[picture_size] = measure_view(
                self._pixels, picture_size, (int(input_size[0]), int(input_size[1]))
            )
        return self._views[picture_size]


class TextPreparer:
    """Tokenizes texts; which tokens the head reads follows from what the model is for."""

    reads_text_only = True

    def __init__(self, tokenizer: Any, model: nn.Module) -> None:
        self.tokenizer = tokenizer
        self.max_length = _longest_text(getattr(model, "config", None))
        self.reads_last = "Causal" in type(model).__name__ or "LMHead" in type(model).__name__
        self.start = _decoder_start(getattr(model, "config", None))

    def __call__(
        self, sources: Sequence[Any], *, size: Size = None, texts: Sequence[str] | None = None
    ) -> Prepared:
        """Prepare a batch of texts."""
        only_texts(size, texts)
        tokens = tokenize(self.tokenizer, sources, max_length=self.max_length)
        inputs = dict(tokens.inputs)
        seen = inputs["attention_mask"].bool() if "attention_mask" in inputs else None
        if self.start is not None:
            inputs["decoder_input_ids"] = torch.full((len(tokens.texts), 1), self.start)
        return Prepared(
            inputs, texts=tokens.texts, layouts=self._layouts(tokens, seen), seen=seen, notes=tokens.notes
        )

    def _layouts(self, tokens: Any, seen: Tensor | None) -> Any:
        if not self.reads_last:
            return tokens.layouts([None] * len(tokens.texts))
        rows = torch.ones(len(tokens.texts), len(tokens.labels[0])) if seen is None else seen
        return tokens.layouts([[int(row.nonzero().max())] for row in rows])


class PairPreparer:
    """Prepares pictures and the texts that they are compared with."""

    def __init__(self, eye: PicturePreparer, tokenizer: Any, config: Any) -> None:
        self.eye, self.tokenizer = eye, tokenizer
        self.max_length = _longest_text(getattr(config, "text_config", config))

    def __call__(
        self, sources: Sequence[Any], *, size: Size = None, texts: Sequence[str] | None = None
    ) -> Prepared:
        """Prepare pictures and texts."""
        if not texts:
            raise InputError(
                "this model compares pictures with texts: give them as texts=, such as "
                'prepare("sample:poster", texts=["a portrait", "a landscape"])'
            )
        prepared = self.eye(sources, size=size)
        tokens = tokenize(self.tokenizer, list(texts), max_length=self.max_length)
        seen = tokens.inputs["attention_mask"].bool() if "attention_mask" in tokens.inputs else None
        return Prepared(
            {**prepared.inputs, **tokens.inputs},
            prepared.views,
            tokens.texts,
            layouts=tokens.layouts([None] * len(tokens.texts)),
            seen=seen,
            notes=tokens.notes,
        )


class CaptionPreparer:
    """Prepares pictures and the words that the decoder has written so far."""

    def __init__(self, eye: PicturePreparer, tokenizer: Any, config: Any) -> None:
        self.eye, self.tokenizer, self.start = eye, tokenizer, _decoder_start(config)

    def __call__(
        self, sources: Sequence[Any], *, size: Size = None, texts: Sequence[str] | None = None
    ) -> Prepared:
        """Prepare pictures; ``texts`` are the captions so far, one per picture, nothing if omitted."""
        prepared = self.eye(sources, size=size)
        if texts is None:
            if self.start is None:
                raise InputError("this model names no token to start with: give the text so far as texts=")
            begin = torch.full((len(sources), 1), self.start)
            return Prepared({**prepared.inputs, "decoder_input_ids": begin}, prepared.views)
        if len(texts) != len(sources):
            raise InputError(
                f"{len(sources)} pictures need as many texts (captions so far), got {len(texts)}"
            )
        tokens = tokenize(self.tokenizer, list(texts))
        if len({int(row.sum()) for row in tokens.inputs["attention_mask"]}) > 1:
            raise InputError("captions of different lengths cannot share a batch: pass them one by one")
        ids = _without_end(tokens.inputs["input_ids"], self.tokenizer.eos_token_id)
        if self.start is not None and not bool((ids[:, 0] == self.start).all()):
            ids = torch.cat([torch.full((len(ids), 1), self.start), ids], dim=1)
        layouts = [TokenLayout(None, tokens=row, readout=None) for row in token_labels(self.tokenizer, ids)]
        inputs = {**prepared.inputs, "decoder_input_ids": ids}
        return Prepared(inputs, prepared.views, tokens.texts, layouts=tuple(layouts))


class UnknownPreparer:
    """Stands where a model was saved without what prepares its inputs."""

    def __init__(self, name: str, missing: str) -> None:
        self.name, self.missing = name, missing

    def __call__(
        self, sources: Sequence[Any], *, size: Size = None, texts: Sequence[str] | None = None
    ) -> Prepared:
        """Refuse.

        Raises
        ------
        InputError
            Always: how the inputs are made is not guessed.
        """
        del sources, size, texts
        raise InputError(
            f"{self.name!r} was saved without {self.missing}; prepare tensors yourself and call "
            "capture(loaded, {...}) with the keyword arguments of its forward pass"
        )


def _interpolates(model: nn.Module) -> tuple[bool, bool]:
    """Return whether the model takes any size of picture by itself, and whether it does on request."""
    word = "interpolate_pos_encoding"
    on_request = word in inspect.signature(model.forward).parameters
    switched = any(word in inspect.signature(module.forward).parameters for module in model.modules())
    interpolating = any(hasattr(module, word) for module in model.modules())
    # attention biases, as LeViT has them, are one number for each pair of places
    words = ("position", "attention_bias")
    tables = any(
        "pos" in name.rpartition(".")[2] or any(word in name for word in words) for name in model.state_dict()
    )
    return (interpolating and not switched) or not tables, on_request


def _patch_processor(processor: Any, model: nn.Module) -> PatchProcessor | None:
    """Return a processor that keeps the aspect, with the model's own numbers; None if it is not a ViT."""
    config: Any = getattr(model, "config", None)
    config = getattr(config, "vision_config", None) or getattr(config, "encoder", None) or config
    patch, size = getattr(config, "patch_size", None), getattr(config, "image_size", None)
    if not isinstance(patch, int) or not isinstance(size, int) or not getattr(processor, "do_rescale", False):
        return None
    if abs(float(getattr(processor, "rescale_factor", 1 / 255)) * 255 - 1) > 1e-6:
        return None
    normalised = getattr(processor, "do_normalize", False)
    mean = tuple(map(float, processor.image_mean)) if normalised else (0.0, 0.0, 0.0)
    std = tuple(map(float, processor.image_std)) if normalised else (1.0, 1.0, 1.0)
    resample = int(getattr(processor, "resample", None) or Image.Resampling.BICUBIC)
    return PatchProcessor(patch, size - size % patch, mean, std, resample)


def _longest_text(config: Any) -> int | None:
    length = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if length is None:
        return None
    # RoBERTa counts positions from the padding index on
    offset = (
        getattr(config, "pad_token_id", None) if "roberta" in str(getattr(config, "model_type", "")) else 0
    )
    return int(length) - (int(offset) + 1 if offset else 0)


def _decoder_start(config: Any) -> int | None:
    if not getattr(config, "is_encoder_decoder", False):
        return None
    for part in (config, getattr(config, "decoder", None)):
        for name in ("decoder_start_token_id", "bos_token_id"):
            if getattr(part, name, None) is not None:
                return int(getattr(part, name))
    return None


def _without_end(ids: Tensor, end: int | None) -> Tensor:
    """Drop the end mark that the tokenizer appended: the caption goes on."""
    return ids[:, :-1] if ids.shape[1] > 1 and end is not None and bool((ids[:, -1] == end).all()) else ids
