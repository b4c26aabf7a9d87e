"""Small models of every transformers family, with random weights: shrunken configs and fitting inputs."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

MAX_PARAMETERS = 120_000_000
VOCABULARY = 256

_LAYERS = re.compile(
    r"(num|n)_.*layers?$|^(encoder|decoder|text|vision)_layers$|^depth$|^layers$|^num_blocks$"
)
_HEADS = re.compile(r"(num|n)_.*heads?$|^(encoder|decoder)_attention_heads$|^nhead$|^num_attention_heads$")
_WIDTH = re.compile(
    r"hidden_size$|^d_model$|embed_dim$|^dim$|^n_embd$|^width$|embedding_size$|hidden_dim$|^emb_dim$"
)
_INNER = re.compile(
    r"intermediate_size$|ffn_dim$|^n_inner$|dim_feedforward$|feedforward_size$|^d_ff$|hidden_act_dim$"
)


def shrunken(config: Any, level: int) -> Any:
    """Return a smaller copy of a config.

    Parameters
    ----------
    config : a config of the library.
    level : 0 = everything small; 1 = few layers and a small vocabulary only; 2 = as it is.
    """
    small = copy.deepcopy(config)
    if level < 2:
        _shrink(small, level)
    return small


def _shrink(config: Any, level: int) -> None:
    fields = dict(vars(config))
    heads = 4
    for name, value in fields.items():
        if name.startswith("_") or isinstance(value, bool) or value is None:
            continue
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            _shrink(value, level)
        elif isinstance(value, int):
            new = _smaller(name, value, level, heads)
            if new != value:
                _set(config, name, new)
        elif isinstance(value, list) and name == "layer_types" and len(value) > 2:
            kinds = list(dict.fromkeys(value))
            _set(config, name, (kinds * 4)[: max(2, len(kinds))])
            if "num_hidden_layers" in fields:
                _set(config, "num_hidden_layers", max(2, len(kinds)))


def _set(config: Any, name: str, value: Any) -> None:
    try:
        setattr(config, name, value)
    except (AttributeError, ValueError, NotImplementedError):
        return


def _smaller(name: str, value: int, level: int, heads: int) -> int:
    if name.endswith(("token_id", "token_index")) or name in ("pad_token_id", "bos_token_id"):
        return value % VOCABULARY if value >= VOCABULARY else value
    if "vocab_size" in name and value > VOCABULARY:
        return VOCABULARY
    if _LAYERS.search(name) and value > 2:
        return 2
    if name in ("n_group", "topk_group", "num_groups_moe"):
        return 1
    if name in ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts") and value > 4:
        return 4
    if name in ("num_experts_per_tok", "moe_topk", "top_k") and value > 2:
        return 2
    if level:
        return value
    if "key_value_heads" in name or name == "num_kv_heads":
        return min(value, 2) if value < 8 else 2
    if _HEADS.search(name) and value > heads:
        return heads
    if name in ("head_dim", "attention_head_size", "d_kv", "kv_channels") and value > 16:
        return 16
    if _WIDTH.search(name) and value > 64:
        return 64
    if _INNER.search(name) and value > 96:
        return 96
    if name == "image_size" and value > 64:
        return 64
    return value


def build(config: Any) -> nn.Module | None:
    """Build the base model of a config with random weights; None if it is too large."""
    import transformers

    makers = [transformers.AutoModel, transformers.AutoModelForSeq2SeqLM, transformers.AutoModelForCausalLM]
    makers += [getattr(transformers, name) for name in _FALLBACKS if hasattr(transformers, name)]
    problem: Exception | None = None
    for maker in makers:
        if type(config) not in maker._model_mapping:
            continue
        try:
            with torch.device("meta"):
                size = sum(p.numel() for p in maker.from_config(copy.deepcopy(config)).parameters())
        except Exception as error:
            problem, size = error, 0
        if size > MAX_PARAMETERS:
            raise MemoryError(f"{size / 1e6:.0f} M parameters")
        try:
            torch.manual_seed(0)
            return maker.from_config(copy.deepcopy(config)).eval()
        except Exception as error:
            problem = error
    if problem is not None:
        raise problem
    raise LookupError("no model class for this config")


_FALLBACKS = (
    "AutoModelForImageTextToText",
    "AutoModelForSpeechSeq2Seq",
    "AutoModelForObjectDetection",
    "AutoModelForDepthEstimation",
    "AutoModelForKeypointMatching",
    "AutoModelForUniversalSegmentation",
    "AutoModelForMaskGeneration",
    "AutoModelForTextToWaveform",
    "AutoModelForVisualQuestionAnswering",
)


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
        if token is not None and images:
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
        yield {"inputs": torch.randn(2, 11, 64)}
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
    mels = getattr(config, "num_mel_bins", None) or getattr(config, "input_feat_per_channel", None) or 80
    if name == "input_values":
        yield torch.randn(2, 8000, generator=generator)
        yield torch.randn(2, 1, 8000, generator=generator)
        yield torch.randn(2, 1024, 128, generator=generator)
        return
    frames = 2 * int(getattr(config, "max_source_positions", 50) or 50)
    yield torch.randn(2, mels, frames, generator=generator)
    yield torch.randn(2, 64, mels, generator=generator)
    yield torch.randn(2, 64, 160, generator=generator)
    yield torch.randn(2, 1, 1001, 64, generator=generator)


def _image_token(config: Any) -> int | None:
    for name in ("image_token_id", "image_token_index"):
        if isinstance(getattr(config, name, None), int):
            return getattr(config, name)
    return None


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
