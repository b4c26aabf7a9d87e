"""What single families need besides being small: fields without a default, and inputs of their own kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

# what the config is made with
_MADE_WITH: dict[str, dict[str, Any]] = {
    "autoformer": {"prediction_length": 4, "context_length": 12, "lags_sequence": [1, 2]},
    "informer": {"prediction_length": 4, "context_length": 12, "lags_sequence": [1, 2]},
    "time_series_transformer": {"prediction_length": 4, "context_length": 12, "lags_sequence": [1, 2]},
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32},
    "reformer": {"axial_pos_shape": [8, 16], "axial_pos_embds_dim": [16, 48], "max_position_embeddings": 128},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "ministral": {"head_dim": 16},
}

# dotted field of the config -> value, set after the config was made smaller
_FIELDS: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_state": 8},
    "falcon_h1": {"mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_ssm": 128, "mamba_d_state": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 8},
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention"],
        "mamba_n_heads": 4,
        "mamba_d_head": 32,
        "mamba_d_state": 8,
    },
    "blt": {"encoder_hash_byte_group_vocab": 256},
    "chameleon": {"vocabulary_map": {"<image>": 4, "IMGIMGAZ": 5}},
    "blip-2": {"image_token_index": 200, "num_query_tokens": 4},
    "instructblip": {"image_token_index": 200, "num_query_tokens": 4},
    "instructblipvideo": {"video_token_index": 200, "num_query_tokens": 4},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "mamba2": {"num_heads": 8, "head_dim": 16, "state_size": 8},
    "ernie4_5_moe": {"moe_k": 2},
    "vivit": {"num_frames": 4},
    "zamba2": {"mamba_d_state": 8},
}


def made_with(name: str) -> dict[str, Any]:
    """Return what the config of a family must be made with."""
    return _MADE_WITH.get(name, {})


def adjust(name: str, config: Any) -> Any:
    """Set the fields that a family needs."""
    for path, value in _FIELDS.get(name, {}).items():
        *above, last = path.split(".")
        owner = config
        for one in above:
            owner = getattr(owner, one)
        setattr(owner, last, value)
    text = getattr(config, "text_config", None)
    if hasattr(getattr(config, "vision_config", None), "spatial_merge_size"):
        _rotate_over_axes(text)
    return config


def _rotate_over_axes(text: Any) -> None:
    """Give narrow heads a rotation over time, rows and columns that fits them."""
    ropes = getattr(text, "rope_parameters", None)
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    if isinstance(ropes, dict) and "rope_type" in ropes:
        half = int(width * ropes.get("partial_rotary_factor", 1.0)) // 2
        ropes["mrope_section"] = [half - 2 * (half // 3), half // 3, half // 3]


def _blip(config: Any, name: str) -> Iterator[dict[str, Any]]:
    token = getattr(config, "image_token_index", None) or getattr(config, "video_token_index", None) or 200
    generator = torch.Generator().manual_seed(4)
    side = config.vision_config.image_size
    frames = 2 if "video" in name else 1
    words = torch.randint(5, 60, (2, 9), generator=generator)
    ids = torch.cat([torch.full((2, frames * config.num_query_tokens), token), words], 1)
    picture = torch.randn(2, *([frames] if frames > 1 else []), 3, side, side, generator=generator)
    given = {"pixel_values": picture, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if "instruct" in name:
        given |= {"qformer_input_ids": words, "qformer_attention_mask": torch.ones_like(words)}
    yield given
    yield {**given, "decoder_input_ids": words}


def own_inputs(name: str, config: Any) -> Iterator[dict[str, Any]]:
    """Yield inputs of a kind that only some families take."""
    generator = torch.Generator().manual_seed(4)
    if name in ("blip-2", "instructblip", "instructblipvideo"):
        yield from _blip(config, name)
    if name == "lightglue":
        yield {"pixel_values": torch.randn(1, 2, 3, 120, 160, generator=generator)}
    if name == "seggpt":
        picture = torch.randn(3, 1, 3, *config.image_size, generator=generator)
        yield {"pixel_values": picture[0], "prompt_pixel_values": picture[1], "prompt_masks": picture[2]}
    if name == "decision_transformer":
        yield {
            "states": torch.randn(2, 5, config.state_dim, generator=generator),
            "actions": torch.randn(2, 5, config.act_dim, generator=generator),
            "rewards": torch.randn(2, 5, 1, generator=generator),
            "returns_to_go": torch.randn(2, 5, 1, generator=generator),
            "timesteps": torch.arange(5).expand(2, 5),
            "attention_mask": torch.ones(2, 5),
        }
