"""Models of texts whose layers, caches or tokens are of a kind of their own."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers as library

from by_hand.parts import PLAIN, PLAIN_WORDS, WORDS, Given, Made, built, token_ids, word_inputs

EXPERTS: Given = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}


def bailing_hybrid() -> Made:
    """Build linear attention and latent attention in turn."""
    config = library.BailingHybridConfig(
        **{**WORDS, "num_key_value_heads": 4, "num_hidden_layers": 2},
        layer_types=["linear_attention", "full_attention"],
        mlp_layer_types=["dense", "sparse"],
        kv_lora_rank=8,
        qk_rope_head_dim=4,
        qk_nope_head_dim=8,
        v_head_dim=8,
        head_dim=8,
        n_group=1,
        topk_group=1,
        num_mtp_layers=0,
        num_local_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
    )
    return built("BailingHybridModel", config), word_inputs()


def blt() -> Made:
    """Build bytes that are pooled to patches, and read back from them."""
    sizes = {**PLAIN, "num_key_value_heads": 4}
    config = library.BltConfig(
        vocab_size=260,
        patching_mode="space",
        patch_in_forward=False,
        max_patch_length=3,
        encoder_hash_byte_group_size=[3, 4],
        encoder_hash_byte_group_vocab=64,
        use_cache=False,
        encoder_config={**sizes, "hidden_size_global": 64, "num_hidden_layers": 1},
        decoder_config={**sizes, "hidden_size_global": 64},
        global_config={**sizes, "hidden_size": 64},
    )
    return built("BltModel", config), {"input_ids": token_ids(12), "use_cache": False}


def cohere_compass() -> Made:
    """Build an embedder of texts; pictures go in the way of Qwen."""
    ropes = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
    kinds = ["sliding_attention", "full_attention"]
    words = {
        **WORDS, "layer_types": kinds, "sliding_window": 5, "rope_parameters": dict.fromkeys(kinds, ropes),
    }  # fmt: skip
    eye = {
        "depth": 2, "hidden_size": 32, "num_heads": 4, "intermediate_size": 48, "patch_size": 7,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 32,
        "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
    }  # fmt: skip
    config = library.CohereCompassConfig(
        text_config=words, vision_config=eye, image_token_id=200, video_token_id=201,
        vision_start_token_id=202, vision_end_token_id=203,
    )  # fmt: skip
    return built("CohereCompassModel", config), word_inputs()


def hrm_text() -> Made:
    """Build two stacks of layers that run several times."""
    config = library.HrmTextConfig(
        **PLAIN_WORDS | {"num_hidden_layers": 1}, head_dim=8, H_cycles=2, L_cycles=2, L_bp_cycles=[2]
    )
    return built("HrmTextModel", config), word_inputs()


def jev() -> Made:
    """Build a judge: a decoder whose states at some marks are read."""
    config = library.JevConfig(
        hidden_size=32, num_verbalizers=24, text_config={"model_type": "qwen3", **WORDS, "head_dim": 8}
    )
    return built("JevForDecision", config), {
        "input_ids": token_ids(11)[:1],
        "marks": torch.tensor([[5, 9]]),
        "num_options": torch.tensor([[2, 2]]),
        "question_type_ids": torch.tensor([[0, 0]]),
    }


def qwen4_exp() -> Made:
    """Build linear attention, and attention to chosen tokens, over several residual streams."""
    sizes = {name: value for name, value in WORDS.items() if name != "intermediate_size"}
    config = library.Qwen4ExpTextConfig(
        **sizes,
        **EXPERTS,
        shared_expert_intermediate_size=16,
        head_dim=8,
        layer_types=["linear_attention", "indexed_attention"],
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        hc_count=2,
        hc_lowrank=8,
        indexer_n_heads=2,
        indexer_kv_heads=1,
        indexer_head_dim=8,
        indexer_budget=8,
        indexer_compress_ratio=2,
    )
    return built("Qwen4ExpTextModel", config), word_inputs()


def diffusion_gemma() -> Made:
    """Build a prompt's encoder and a canvas that reads its keys and itself."""
    words = {
        **WORDS, "head_dim": 8, "global_head_dim": 8, "sliding_window": 5, "num_experts": 4,
        "top_k_experts": 2, "moe_intermediate_size": 16,
        "layer_types": ["sliding_attention", "full_attention"],
    }  # fmt: skip
    eye = {
        "model_type": "gemma4_vision", **PLAIN, "num_key_value_heads": 4, "head_dim": 8, "patch_size": 8,
        "position_embedding_size": 16, "pooling_kernel_size": 1,
    }  # fmt: skip
    config = library.DiffusionGemmaConfig(
        text_config=words, vision_config=eye, image_token_id=200, boi_token_id=201, eoi_token_id=202,
        canvas_length=7,
    )  # fmt: skip
    return built("DiffusionGemmaModel", config), {**word_inputs(), "decoder_input_ids": token_ids(7, seed=3)}


def ernie4_5_vl_moe() -> Made:
    """Build experts for words and experts for pictures, with words only."""
    words = {
        **WORDS, "num_key_value_heads": 2, "moe_intermediate_size": [16, 8], "moe_k": 2, "moe_num_experts": 4,
        "moe_num_shared_experts": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
    }  # fmt: skip
    eye = {"depth": 2, "hidden_size": 32, "num_heads": 4, "intermediate_size": 48, "patch_size": 7}
    config = library.Ernie4_5_VLMoeConfig(
        text_config=words, vision_config=eye, image_token_id=200, image_start_token_id=201,
        image_end_token_id=202, video_token_id=203, video_start_token_id=204, video_end_token_id=205,
    )  # fmt: skip
    ids = token_ids()
    return built("Ernie4_5_VLMoeModel", config), {
        **word_inputs(),
        "mm_token_type_ids": torch.zeros_like(ids).int(),
        "moe_mm_token_type_ids": torch.zeros_like(ids).int(),
    }


MADE: dict[str, Callable[[], Made]] = {
    "bailing_hybrid": bailing_hybrid,
    "blt": blt,
    "cohere_compass": cohere_compass,
    "diffusion_gemma": diffusion_gemma,
    "ernie4_5_vl_moe": ernie4_5_vl_moe,
    "hrm_text": hrm_text,
    "jev": jev,
    "qwen4_exp": qwen4_exp,
}
