"""Inputs that may fit a model of a family, most likely first."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def inputs_for(model: nn.Module, config: Any) -> Iterator[dict[str, Any]]:
    """Yield inputs that may fit, most likely first."""
    known = inspect.signature(model.forward).parameters
    text = {"input_ids": _ids(config, 11)} if "input_ids" in known else {}
    decoder = {"decoder_input_ids": _ids(config, 7)} if "decoder_input_ids" in known else {}
    images = [{"pixel_values": one} for one in _pixels(config)] if "pixel_values" in known else []
    for name in ("input_features", "input_values"):
        if name in known:
            for one in _sounds(config, name):
                yield {name: one}
                yield {name: one, **decoder}
                yield {name: one, **text}
    if model.__dict__.get("main_input_name", getattr(model, "main_input_name", "")) == "pixel_values":
        for one in images:
            yield one
            yield {**one, **text}
            yield {**one, **decoder}
    if text:
        token = _image_token(config)
        if token is not None and "image_grid_thw" in known:
            yield from _merged_grids(config, text["input_ids"], token)
        elif token is not None and images:
            for one in images[:2]:
                for count in (4, 16, 1, 64, 9, 49, 196, 256, 576):
                    ids = torch.cat([text["input_ids"], torch.full((2, count), token), _ids(config, 3)], 1)
                    yield {**one, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
        yield {**text, **decoder}
        yield text
        for one in images:
            yield {**one, **text}
            yield {**one, **text, "bbox": torch.zeros(2, 11, 4, dtype=torch.long)}
        yield {**text, "bbox": torch.zeros(2, 11, 4, dtype=torch.long)}
        yield {**text, "visual_feats": torch.randn(2, 5, 2048), "visual_pos": torch.rand(2, 5, 4)}
        yield {"input_ids": _ids(config, 64), **({"decoder_input_ids": _ids(config, 16)} if decoder else {})}
        yield {"input_ids": torch.randint(3, 200, (2, 128))}
    yield from images
    for frames in (2, 4, 8, 16):
        for one in images[:2]:
            yield {
                "pixel_values": one["pixel_values"].unsqueeze(1).expand(-1, frames, -1, -1, -1).contiguous()
            }
    if "past_values" in known:
        yield from _series(config, known)
    if "inputs" in known:
        yield {"inputs": _ids(config, 11)}
        yield {"inputs": torch.randn(2, 11, getattr(config, "d_model", 64))}
    if "inputs_embeds" in known:
        yield {"inputs_embeds": torch.randn(2, 11, int(getattr(config, "hidden_size", 64) or 64))}


def _ids(config: Any, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    top = (
        getattr(config, "vocab_size", None)
        or getattr(getattr(config, "text_config", None), "vocab_size", None)
        or 64
    )
    return torch.randint(5, min(int(top), 60), (2, length), generator=generator)


def _pixels(config: Any) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    own = getattr(config, "vision_config", None) or getattr(config, "backbone_config", None) or config
    size = getattr(own, "image_size", None) or getattr(config, "image_size", None) or 64
    sizes = [tuple(size) if isinstance(size, list | tuple) else (int(size), int(size))] if size else []
    channels = getattr(own, "num_channels", 3) or 3
    for one in dict.fromkeys(
        [*[s if len(s) == 2 else (s[-1], s[-1]) for s in sizes], (64, 64), (224, 224), (256, 256)]
    ):
        yield torch.randn(2, channels if isinstance(channels, int) else 3, *one, generator=generator)


def _sounds(config: Any, name: str) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    mels = _anywhere(config, ("num_mel_bins", "input_feat_per_channel", "feature_size", "n_mels")) or 80
    if name == "input_values":
        yield torch.randn(2, 8000, generator=generator)
        yield torch.randn(2, 1, 8000, generator=generator)
        yield torch.randn(2, 1024, 128, generator=generator)
        return
    frames = 2 * int(getattr(config, "max_source_positions", 50) or 50)
    yield torch.randn(2, mels, frames, generator=generator)
    yield torch.randn(2, 200, mels, generator=generator)
    yield torch.randn(2, mels, 200, generator=generator)
    yield torch.randn(2, mels, 3000, generator=generator)
    yield torch.randn(2, 64, mels, generator=generator)
    yield torch.randn(2, 64, 160, generator=generator)
    yield torch.randn(2, 1, 1001, 64, generator=generator)


def _image_token(config: Any) -> int | None:
    for name in ("image_token_id", "image_token_index"):
        if isinstance(getattr(config, name, None), int):
            return getattr(config, name)
    return None


def _anywhere(config: Any, names: tuple[str, ...]) -> Any:
    """Return the first of some fields that a config or one of its sub-configs has."""
    for name in names:
        if isinstance(getattr(config, name, None), int):
            return getattr(config, name)
    for value in vars(config).values():
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            found = _anywhere(value, names)
            if found is not None:
                return found
    return None


def _merged_grids(config: Any, ids: torch.Tensor, token: int) -> Iterator[dict[str, Any]]:
    """Yield pictures as rows of flattened patches, whose tokens are merged two by two."""
    vision = getattr(config, "vision_config", config)
    side = _anywhere(vision, ("patch_size", "spatial_patch_size")) or 14
    channels = _anywhere(vision, ("in_channels", "in_chans", "num_channels")) or 3
    depth = _anywhere(vision, ("temporal_patch_size",)) or 1
    merge = _anywhere(vision, ("spatial_merge_size", "merge_size")) or _anywhere(
        config, ("spatial_merge_size",)
    )
    generator = torch.Generator().manual_seed(2)
    for rows, columns in ((4, 6), (8, 8)):
        patches = torch.randn(2 * rows * columns, channels * depth * side * side, generator=generator)
        count = rows * columns // (merge or 2) ** 2
        filled = torch.cat([ids, torch.full((2, count), token), ids[:, :3]], 1)
        start = getattr(config, "vision_start_token_id", None) or getattr(
            config, "image_start_token_id", None
        )
        if isinstance(start, int):
            filled = torch.cat([ids, torch.full((2, 1), start), filled[:, ids.shape[1] :]], 1)
        given = {
            "input_ids": filled,
            "pixel_values": patches,
            "image_grid_thw": torch.tensor([[1, rows, columns]] * 2),
            "attention_mask": torch.ones_like(filled),
        }
        yield {**given, "mm_token_type_ids": (filled == token).int()}
        yield given


def _series(config: Any, known: Any) -> Iterator[dict[str, Any]]:
    length = getattr(config, "context_length", None) or 32
    channels = getattr(config, "num_input_channels", None) or getattr(config, "input_size", None) or 1
    lags = max(getattr(config, "lags_sequence", None) or [0])
    for values in (torch.randn(2, length, channels), torch.randn(2, length), torch.randn(2, length + lags)):
        given = {"past_values": values, "past_time_features": torch.randn(2, values.shape[1], 0)}
        given["past_observed_mask"] = torch.ones_like(values)
        future = getattr(config, "prediction_length", None) or 8
        given["future_values"] = torch.randn(2, future, *values.shape[2:])
        given["future_time_features"] = torch.randn(2, future, 0)
        given["freq"] = torch.zeros(2, dtype=torch.long)
        yield {name: value for name, value in given.items() if name in known}
