"""Families whose parts must fit each other: their small configs and their inputs, written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as library
from torch import nn

Given = dict[str, Any]
Made = tuple[nn.Module, Given]

SMALL: Given = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
}
PLAIN: Given = {name: value for name, value in SMALL.items() if name != "num_key_value_heads"}
WORDS: Given = {**SMALL, "vocab_size": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
PLAIN_WORDS: Given = {name: value for name, value in WORDS.items() if name != "num_key_value_heads"}
MAMBA: Given = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_expand": 2}
RESNET: Given = {
    "model_type": "rt_detr_resnet",
    "embedding_size": 10,
    "hidden_sizes": [8, 16, 24, 32],
    "depths": [1, 1, 1, 1],
    "layer_type": "bottleneck",
    "out_features": ["stage2", "stage3", "stage4"],
    "out_indices": [2, 3, 4],
}
SWIN: Given = {
    "image_size": 64,
    "embed_dim": 16,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 2, 2],
    "window_size": 4,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}


def _ids(length: int = 11, seed: int = 1) -> torch.Tensor:
    return torch.randint(5, 200, (2, length), generator=torch.Generator().manual_seed(seed))


def _noise(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _words(length: int = 11) -> Given:
    ids = _ids(length)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _model(name: str, config: Any) -> Any:
    torch.manual_seed(0)
    return getattr(library, name)(config).eval()


def siglip2() -> Made:
    """Build pictures of two shapes, flattened into patches, one of them padded."""
    words = {**PLAIN_WORDS, "max_position_embeddings": 32, "projection_size": 32}
    patches = {**PLAIN, "patch_size": 4, "num_patches": 25}
    config = library.Siglip2Config(text_config=words, vision_config=patches)
    mask = torch.ones(2, 30, dtype=torch.long)
    mask[1, 24:] = 0
    return _model("Siglip2Model", config), {
        "input_ids": _ids(),
        "pixel_values": _noise(2, 30, 48),
        "pixel_attention_mask": mask,
        "spatial_shapes": torch.tensor([[5, 6], [4, 6]]),
    }


def sam() -> Made:
    """Build a windowed encoder with relative positions, and a decoder with two-way attention."""
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 8,
        "output_channels": 16,
        "mlp_dim": 48,
        "window_size": 3,
        "global_attn_indexes": [1],
        "num_pos_feats": 8,
    }
    prompt = {"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 8}
    decoder = {"hidden_size": 16, "mlp_dim": 24, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    config = library.SamConfig(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder
    )
    return _model("SamModel", config), {
        "pixel_values": _noise(2, 3, 64, 64),
        "input_points": 64 * torch.rand(2, 1, 3, 2),
    }


def sam_hq() -> Made:
    """Build the same as Segment Anything, with features of the encoder's windows for finer masks."""
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 8,
        "output_channels": 32,
        "mlp_dim": 48,
        "window_size": 3,
        "global_attn_indexes": [1],
        "num_pos_feats": 16,
    }
    prompt = {"hidden_size": 32, "image_size": 64, "patch_size": 8, "mask_input_channels": 8}
    decoder = {
        "hidden_size": 32,
        "mlp_dim": 24,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
        "vit_dim": 32,
    }
    config = library.SamHQConfig(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder
    )
    return _model("SamHQModel", config), {
        "pixel_values": _noise(2, 3, 64, 64),
        "input_points": 64 * torch.rand(2, 1, 3, 2),
    }


def _hiera() -> Given:
    return {
        "hidden_size": 12,
        "embed_dim_per_stage": [12, 24, 48, 96],
        "num_attention_heads": 1,
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "blocks_per_stage": [1, 2, 1, 1],
        "image_size": [128, 128],
        "window_positional_embedding_background_size": [7, 7],
        "window_size_per_stage": [8, 4, 4, 4],
        "global_attention_blocks": [],
    }


def sam2() -> Made:
    """Build a hierarchical encoder with pooled queries, and the decoder of masks."""
    vision = {
        "backbone_config": {"model_type": "sam2_hiera_det_model", **_hiera()},
        "backbone_channel_list": [96, 48, 24, 12],
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "fpn_hidden_size": 32,
    }
    prompt = {"hidden_size": 32, "image_size": 128, "patch_size": 16, "mask_input_channels": 8}
    decoder = {"hidden_size": 32, "mlp_dim": 24, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    config = library.Sam2Config(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder
    )
    return _model("Sam2Model", config), {
        "pixel_values": _noise(2, 3, 128, 128),
        "input_points": 128 * torch.rand(2, 1, 3, 2),
    }


def _rt_detr(kind: str) -> Made:
    made = getattr(library, f"{kind}Config")(
        backbone_config=RESNET,
        encoder_hidden_dim=32,
        encoder_in_channels=[16, 24, 32],
        feat_strides=[8, 16, 32],
        encoder_layers=1,
        encoder_ffn_dim=48,
        encoder_attention_heads=2,
        encode_proj_layers=[2],
        d_model=32,
        num_queries=13,
        decoder_in_channels=[32, 32, 32],
        decoder_ffn_dim=48,
        decoder_layers=2,
        decoder_attention_heads=2,
        num_feature_levels=3,
        num_denoising=0,
    )
    return _model(f"{kind}Model", made), {"pixel_values": _noise(2, 3, 64, 64)}


def rt_detr() -> Made:
    """Build queries that attend to each other, and sample the feature maps."""
    return _rt_detr("RTDetr")


def rt_detr_v2() -> Made:
    """Build the same as RT-DETR, with its own sampling."""
    return _rt_detr("RTDetrV2")


def _dino(kind: str) -> Made:
    text = {"model_type": "bert", **PLAIN_WORDS}
    config = getattr(library, f"{kind}Config")(
        backbone_config={"model_type": "swin", **SWIN, "out_features": ["stage2", "stage3", "stage4"]},
        text_config=text,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        num_queries=13,
        num_feature_levels=4,
    )
    ids = torch.full((2, 7), 150)
    ids[:, 0], ids[:, 3], ids[:, 5], ids[:, 6] = 101, 151, 152, 102
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return _model(f"{kind}Model", config), {"pixel_values": _noise(2, 3, 64, 64), **given}


def grounding_dino() -> Made:
    """Build words and pictures that attend to each other in both directions."""
    return _dino("GroundingDino")


def mm_grounding_dino() -> Made:
    """Build the same as Grounding DINO, from another trainer."""
    return _dino("MMGroundingDino")


def _mask_decoder() -> Given:
    return {
        "model_type": "detr",
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "num_queries": 7,
    }


def maskformer() -> Made:
    """Build a windowed encoder, and queries that read its last map."""
    config = library.MaskFormerConfig(
        backbone_config={"model_type": "swin", **SWIN},
        decoder_config=_mask_decoder(),
        fpn_feature_size=32,
        mask_feature_size=32,
    )
    return _model("MaskFormerModel", config), {"pixel_values": _noise(2, 3, 64, 64)}


def mask2former() -> Made:
    """Build queries that read the maps under masks of their own, with nn.MultiheadAttention."""
    config = library.Mask2FormerConfig(
        backbone_config={"model_type": "swin", **SWIN},
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=48,
        dim_feedforward=48,
        encoder_layers=2,
        decoder_layers=3,
        num_attention_heads=4,
        num_queries=7,
    )
    return _model("Mask2FormerModel", config), {"pixel_values": _noise(2, 3, 64, 64)}


def oneformer() -> Made:
    """Build the same as Mask2Former, with a task as text."""
    config = library.OneFormerConfig(
        backbone_config={"model_type": "swin", **SWIN},
        num_queries=7,
        hidden_dim=32,
        mask_dim=32,
        conv_dim=32,
        encoder_feedforward_dim=48,
        dim_feedforward=48,
        encoder_layers=2,
        decoder_layers=3,
        num_attention_heads=4,
        text_encoder_width=32,
        text_encoder_context_length=11,
        text_encoder_num_layers=2,
        text_encoder_vocab_size=256,
        text_encoder_proj_layers=1,
        text_encoder_n_ctx=2,
        task_seq_len=11,
        query_dec_layers=2,
    )
    return _model("OneFormerModel", config), {
        "pixel_values": _noise(2, 3, 64, 64),
        "task_inputs": _noise(2, 11),
    }


def zamba() -> Made:
    """Build one block of attention that several layers share, between state space layers."""
    config = library.ZambaConfig(
        **{**WORDS, "num_key_value_heads": 4, "num_hidden_layers": 5},
        attn_layer_period=2,
        attn_layer_offset=1,
        layers_block_type=["mamba", "hybrid", "mamba", "hybrid", "mamba"],
        mamba_d_state=8,
        use_mamba_kernels=False,
    )
    return _model("ZambaModel", config), _words()


def zamba2() -> Made:
    """Build the same as Zamba, with two blocks that take turns."""
    config = library.Zamba2Config(
        **{**WORDS, "num_key_value_heads": 4, "num_hidden_layers": 5},
        layers_block_type=["mamba", "hybrid", "mamba", "hybrid", "hybrid"],
        num_mem_blocks=2,
        mamba_d_state=8,
        mamba_ngroups=1,
        n_mamba_heads=4,
        use_mamba_kernels=False,
        use_mem_rope=True,
    )
    return _model("Zamba2Model", config), _words()


def nemotron_h() -> Made:
    """Build state space layers, attention, experts and plain layers in turn."""
    config = library.NemotronHConfig(
        **{name: value for name, value in WORDS.items() if name != "num_hidden_layers"},
        layers_block_type=["mamba", "attention", "moe", "attention"],
        head_dim=8,
        mamba_num_heads=4,
        mamba_head_dim=16,
        ssm_state_size=8,
        n_groups=2,
        n_routed_experts=4,
        moe_intermediate_size=24,
        moe_shared_expert_intermediate_size=24,
        use_mamba_kernels=False,
    )
    return _model("NemotronHModel", config), _words()


def granitemoehybrid() -> Made:
    """Build state space layers and attention without positions."""
    config = library.GraniteMoeHybridConfig(
        **WORDS, **MAMBA, layer_types=["mamba", "attention"], num_local_experts=4, attention_multiplier=0.3
    )
    return _model("GraniteMoeHybridModel", config), _words()


def lfm2_moe() -> Made:
    """Build short convolutions and attention."""
    config = library.Lfm2MoeConfig(
        **WORDS,
        layer_types=["conv", "full_attention"],
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=24,
        num_dense_layers=1,
    )
    return _model("Lfm2MoeModel", config), _words()


def vjepa2() -> Made:
    """Build tubes of a film: the encoder, and the predictor of hidden tubes."""
    config = library.VJEPA2Config(
        crop_size=32,
        frames_per_clip=4,
        hidden_size=36,
        num_attention_heads=3,
        num_hidden_layers=2,
        pred_hidden_size=24,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=2,
        num_pooler_layers=1,
    )
    return _model("VJEPA2Model", config), {"pixel_values_videos": _noise(2, 4, 3, 32, 32)}


def vitpose() -> Made:
    """Build a picture higher than wide."""
    backbone = {
        "model_type": "vitpose_backbone",
        "image_size": [64, 48],
        "patch_size": [8, 8],
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "out_indices": [2],
        "num_experts": 1,
    }
    model = _model("VitPoseForPoseEstimation", library.VitPoseConfig(backbone_config=backbone))
    return model, {"pixel_values": _noise(2, 3, 64, 48)}


def xclip() -> Made:
    """Build frames that speak to each other through message tokens."""
    config = library.XCLIPConfig(
        text_config=PLAIN_WORDS,
        vision_config={
            **PLAIN,
            "image_size": 32,
            "patch_size": 8,
            "mit_hidden_size": 32,
            "mit_intermediate_size": 48,
            "mit_num_hidden_layers": 1,
            "mit_num_attention_heads": 4,
            "num_frames": 4,
        },
        projection_dim=32,
        prompt_num_attention_heads=4,
        prompt_layers=1,
    )
    return _model("XCLIPModel", config), {**_words(), "pixel_values": _noise(2, 4, 3, 32, 32)}


def speecht5() -> Made:
    """Build speech in, text out."""
    config = library.SpeechT5Config(
        hidden_size=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        vocab_size=256,
        conv_dim=(32, 32, 32),
        conv_stride=(4, 4, 4),
        conv_kernel=(7, 7, 7),
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        max_text_positions=64,
        max_speech_positions=64,
    )
    model = _model("SpeechT5ForSpeechToText", config)
    return model, {"input_values": _noise(2, 3000), "decoder_input_ids": _ids(7)}


def udop() -> Made:
    """Build words with boxes beside the patches of the page."""
    config = library.UdopConfig(
        vocab_size=256,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        image_size=32,
        patch_size=8,
        pad_token_id=0,
        decoder_start_token_id=0,
    )
    box = torch.rand(2, 11, 2) * 0.4
    given = {**_words(), "bbox": torch.cat([box, box + 0.2], -1), "pixel_values": _noise(2, 3, 32, 32)}
    return _model("UdopModel", config), {**given, "decoder_input_ids": _ids(5)}


def depth_pro() -> Made:
    """Build a picture read in overlapping pieces of several scales."""
    dino = {
        "model_type": "dinov2",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "mlp_ratio": 2,
        "patch_size": 8,
        "image_size": 32,
        "use_mask_token": False,
    }
    config = library.DepthProConfig(
        patch_size=32,
        fusion_hidden_size=16,
        intermediate_hook_ids=[1, 0],
        intermediate_feature_dims=[16, 16],
        scaled_images_ratios=[0.5, 1.0],
        scaled_images_overlap_ratios=[0.25, 0.25],
        scaled_images_feature_dims=[16, 16],
        image_model_config=dino,
        patch_model_config=dino,
        fov_model_config=dino,
        use_fov_model=False,
    )
    return _model("DepthProModel", config), {"pixel_values": _noise(1, 3, 64, 64)}


def kosmos_2() -> Made:
    """Build a picture's tokens in the text."""
    text = {
        "vocab_size": 256,
        "embed_dim": 32,
        "layers": 2,
        "ffn_dim": 48,
        "attention_heads": 4,
        "max_position_embeddings": 64,
    }
    vision = {**PLAIN, "image_size": 32, "patch_size": 8}
    config = library.Kosmos2Config(text_config=text, vision_config=vision, latent_query_num=6)
    spot = torch.zeros(2, 15, dtype=torch.long)
    spot[:, 2:8] = 1
    return _model("Kosmos2Model", config), {
        **_words(15),
        "pixel_values": _noise(2, 3, 32, 32),
        "image_embeds_position_mask": spot,
    }


def idefics() -> Made:
    """Build pictures read across by a decoder of text."""
    config = library.IdeficsConfig(
        **PLAIN_WORDS,
        additional_vocab_size=0,
        cross_layer_interval=1,
        qk_layer_norms=False,
        use_resampler=False,
        vision_config={
            "embed_dim": 32,
            "image_size": 32,
            "patch_size": 8,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 48,
        },
        perceiver_config={"use_resampler": False},
    )
    return _model("IdeficsModel", config), {
        **_words(),
        "pixel_values": _noise(2, 1, 3, 32, 32),
        "image_attention_mask": torch.ones(2, 11, 1, dtype=torch.long),
    }


MADE: dict[str, Callable[[], Made]] = {
    "siglip2": siglip2,
    "sam": sam,
    "sam_hq": sam_hq,
    "sam2": sam2,
    "rt_detr": rt_detr,
    "rt_detr_v2": rt_detr_v2,
    "grounding-dino": grounding_dino,
    "mm-grounding-dino": mm_grounding_dino,
    "maskformer": maskformer,
    "mask2former": mask2former,
    "oneformer": oneformer,
    "zamba": zamba,
    "zamba2": zamba2,
    "nemotron_h": nemotron_h,
    "granitemoehybrid": granitemoehybrid,
    "lfm2_moe": lfm2_moe,
    "vjepa2": vjepa2,
    "vitpose": vitpose,
    "xclip": xclip,
    "speecht5": speecht5,
    "udop": udop,
    "depth_pro": depth_pro,
    "kosmos-2": kosmos_2,
    "idefics": idefics,
}
