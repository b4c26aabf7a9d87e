"""Models of words that see: pictures and films as tokens among the words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as library

from by_hand.parts import PLAIN, PLAIN_WORDS, WORDS, Given, Made, built, noise, placed, word_inputs


def _seen(model: Any, given: Given, token: int) -> Given:
    """Return words with as many places as the model makes of the pictures."""
    with torch.no_grad():
        found = model.get_image_features(**given, return_dict=True).pooler_output
    return {**placed(found[0].shape[0], token), **given}


def deepseek_ocr2() -> Made:
    """Build windows, then a language model that reads the picture, then one that writes."""
    windows = {
        "hidden_size": 32, "output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
        "image_size": 1024, "patch_size": 64, "window_size": 3, "global_attn_indexes": [1], "mlp_dim": 48,
        "downsample_channels": [16, 32],
    }  # fmt: skip
    reads = {**WORDS, "num_key_value_heads": 4}
    writes = {
        **WORDS, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
        "moe_intermediate_size": 16, "mlp_layer_types": ["dense", "sparse"], "n_group": 1, "topk_group": 1,
    }  # fmt: skip
    config = library.DeepseekOcr2Config(
        vision_config={"sam_config": windows, "encoder_config": reads}, text_config=writes, image_token_id=200
    )
    model = built("DeepseekOcr2Model", config)
    return model, word_inputs()


def granite4_vision() -> Made:
    """Build pictures in tiles, read by queries in windows and put into several layers."""
    eye = {"model_type": "clip_vision_model", **PLAIN, "hidden_size": 64, "image_size": 32, "patch_size": 8}
    config = library.Granite4VisionConfig(
        vision_config=eye, text_config=WORDS, image_token_index=200, image_grid_pinpoints=[[32, 32]],
        downsample_rate="1/2", deepstack_layer_map=[(-1, 0)], spatial_target_layers=[0, 0, 1, 1],
        qformer_config={"model_type": "blip_2_qformer", "num_hidden_layers": 1, "intermediate_size": 48,
                        "cross_attention_frequency": 1, "use_qformer_text_input": False},
    )  # fmt: skip
    return built("Granite4VisionModel", config), word_inputs()


def hunyuan_vl() -> Made:
    """Build rows of a picture with their ends among the words."""
    words = {
        **WORDS, "head_dim": 8, "max_position_embeddings": 64,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 1, 1]},
    }  # fmt: skip
    eye = {**PLAIN, "patch_size": 8, "out_hidden_size": 32, "max_image_size": 64, "min_image_size": 16}
    config = library.HunYuanVLConfig(text_config=words, vision_config=eye, image_token_id=200)
    return built("HunYuanVLModel", config), word_inputs()


def step3p7() -> Made:
    """Build a picture that is made four times smaller before it is read."""
    eye = {**PLAIN, "image_size": 56, "patch_size": 7, "mlp_ratio": 1.5, "max_position_embeddings": 64}
    words = {
        **WORDS, "head_dim": 8, "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 5,
        "num_sliding_attention_heads": 4, "mlp_layer_types": ["dense", "sparse"], "n_routed_experts": 4,
        "num_experts_per_tok": 2, "moe_intermediate_size": 16, "share_expert_dim": 16,
    }  # fmt: skip
    config = library.Step3p7Config(text_config=words, vision_config=eye, image_token_id=200)
    model = built("Step3p7Model", config)
    return model, _seen(model, {"pixel_values": noise(2, 3, 56, 56)}, 200)


def pi0() -> Made:
    """Build actions of a robot that read what it sees and was told."""
    words = {"model_type": "gemma", **WORDS, "head_dim": 8}
    eye = {
        "model_type": "siglip_vision_model",
        **PLAIN,
        "image_size": 28,
        "patch_size": 14,
        "vision_use_head": False,
    }
    seen = {
        "model_type": "paligemma", "text_config": words, "vision_config": eye, "image_token_index": 200,
        "projection_dim": 32, "hidden_size": 32,
    }  # fmt: skip
    config = library.PI0Config(
        vlm_config=seen,
        dit_config={**words, "hidden_size": 32},
        chunk_size=5,
        max_state_dim=6,
        max_action_dim=6,
    )
    config.vlm_config.image_token_id = 200
    return built("PI0ForConditionalGeneration", config), {
        **placed(4, 200),
        "state": noise(2, 6),
        "noise": noise(2, 5, 6, seed=3),
        "timestep": torch.tensor([0.3, 0.7]),
        "pixel_values": noise(2, 1, 3, 28, 28),
        "pixel_attention_mask": torch.ones(2, 1, dtype=torch.bool),
    }


def _film() -> Given:
    frames = {
        "model_type": "timm_wrapper", "architecture": "vit_pe_core_large_patch14_336", "num_classes": 32,
        "do_pooling": True, "global_pool": "map", "initializer_range": 0.02,
        "model_args": {"embed_dim": 32, "img_size": [28, 28], "depth": 2, "num_heads": 4,
                       "ref_feat_shape": [2, 2]},
    }  # fmt: skip
    return {**PLAIN, "head_dim": 8, "vision_config": frames}


def pe_video() -> Made:
    """Build frames that are pooled one by one, then read in time, beside their words."""
    config = library.PeVideoConfig(text_config=PLAIN_WORDS, video_config=_film())
    return built("PeVideoModel", config), {**word_inputs(), "pixel_values_videos": noise(2, 3, 3, 28, 28)}


def pe_audio_video() -> Made:
    """Build a film, its sound and its words."""
    heard = {
        **PLAIN, "head_dim": 8,
        "dac_config": {"downsampling_ratios": [2, 4], "encoder_hidden_size": 8, "codebook_dim": 8,
                       "codebook_size": 32, "n_codebooks": 2},
    }  # fmt: skip
    both = {**PLAIN, "head_dim": 8, "audio_config": heard, "video_config": _film()}
    config = library.PeAudioVideoConfig(text_config=PLAIN_WORDS, audio_video_config=both)
    return built("PeAudioVideoModel", config), {
        **word_inputs(),
        "pixel_values_videos": noise(2, 3, 3, 28, 28),
        "input_values": noise(2, 1, 80),
    }


MADE: dict[str, Callable[[], Made]] = {
    "deepseek_ocr2": deepseek_ocr2,
    "granite4_vision": granite4_vision,
    "hunyuan_vl": hunyuan_vl,
    "pe_audio_video": pe_audio_video,
    "pe_video": pe_video,
    "pi0": pi0,
    "step3p7": step3p7,
}
