"""Detectors and segmenters: queries, points and boxes that read an image."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers as library

from by_hand.parts import PLAIN_WORDS, Given, Made, built, noise

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
    return built("SamModel", config), {
        "pixel_values": noise(2, 3, 64, 64),
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
    return built("SamHQModel", config), {
        "pixel_values": noise(2, 3, 64, 64),
        "input_points": 64 * torch.rand(2, 1, 3, 2),
    }


def hiera() -> Given:
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
        "backbone_config": {"model_type": "sam2_hiera_det_model", **hiera()},
        "backbone_channel_list": [96, 48, 24, 12],
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "fpn_hidden_size": 32,
    }
    prompt = {"hidden_size": 32, "image_size": 128, "patch_size": 16, "mask_input_channels": 8}
    decoder = {"hidden_size": 32, "mlp_dim": 24, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    config = library.Sam2Config(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder
    )
    return built("Sam2Model", config), {
        "pixel_values": noise(2, 3, 128, 128),
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
    return built(f"{kind}Model", made), {"pixel_values": noise(2, 3, 64, 64)}


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
    return built(f"{kind}Model", config), {"pixel_values": noise(2, 3, 64, 64), **given}


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
    return built("MaskFormerModel", config), {"pixel_values": noise(2, 3, 64, 64)}


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
    return built("Mask2FormerModel", config), {"pixel_values": noise(2, 3, 64, 64)}


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
    return built("OneFormerModel", config), {
        "pixel_values": noise(2, 3, 64, 64),
        "task_inputs": noise(2, 11),
    }


HGNET = {
    "model_type": "hgnet_v2",
    "embedding_size": 8,
    "stem_channels": [3, 8, 8],
    "hidden_sizes": [8, 16, 24, 32],
    "depths": [1, 1, 1, 1],
    "stage_in_channels": [8, 8, 16, 24],
    "stage_mid_channels": [8, 8, 8, 8],
    "stage_out_channels": [8, 16, 24, 32],
    "stage_num_blocks": [1, 1, 1, 1],
    "stage_downsample": [False, True, True, True],
    "stage_light_block": [False, False, True, True],
    "stage_kernel_size": [3, 3, 3, 3],
    "stage_numb_of_layers": [1, 1, 1, 1],
    "out_features": ["stage2", "stage3", "stage4"],
}


def _fine(kind: str, **more: object) -> Made:
    config = getattr(library, f"{kind}Config")(
        backbone_config=HGNET,
        encoder_hidden_dim=32,
        encoder_in_channels=[16, 24, 32],
        encoder_ffn_dim=48,
        encoder_attention_heads=2,
        d_model=32,
        num_queries=13,
        decoder_in_channels=[32, 32, 32],
        decoder_ffn_dim=48,
        decoder_layers=2,
        decoder_attention_heads=2,
        num_denoising=0,
        decoder_n_points=[2, 2, 2],
        lqe_hidden_dim=16,
        **more,
    )
    return built(f"{kind}Model", config), {"pixel_values": noise(2, 3, 64, 64)}


def d_fine() -> Made:
    """Build queries that refine distributions of box edges."""
    return _fine("DFine")


def deimv2() -> Made:
    """Build the same as D-FINE, with gates instead of sums."""
    return _fine("Deimv2")


def lw_detr() -> Made:
    """Build windows of an image, and queries that sample it."""
    backbone = {
        "model_type": "lw_detr_vit",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 64,
        "pretrain_image_size": 64,
        "patch_size": 8,
        "window_block_indices": [0],
        "out_indices": [1, 2],
        "num_windows": 4,
        "mlp_ratio": 2,
    }
    config = library.LwDetrConfig(
        backbone_config=backbone,
        projector_scale_factors=[1.0],
        d_model=32,
        decoder_ffn_dim=48,
        decoder_layers=2,
        decoder_self_attention_heads=4,
        decoder_cross_attention_heads=4,
        num_queries=13,
        group_detr=1,
    )
    return built("LwDetrModel", config), {
        "pixel_values": noise(2, 3, 64, 64),
        "pixel_mask": torch.ones(2, 64, 64, dtype=torch.long),
    }


def rf_detr() -> Made:
    """Build the same as LW-DETR, with a DINOv2 in windows."""
    backbone = {
        "model_type": "rf_detr_dinov2",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 8,
        "out_indices": [1, 2],
        "num_windows": 2,
        "mlp_ratio": 2,
    }
    config = library.RfDetrConfig(
        backbone_config=backbone,
        d_model=32,
        decoder_ffn_dim=48,
        decoder_layers=2,
        decoder_self_attention_heads=4,
        decoder_cross_attention_heads=4,
        num_queries=13,
        group_detr=1,
    )
    return built("RfDetrModel", config), {
        "pixel_values": noise(2, 3, 64, 64),
        "pixel_mask": torch.ones(2, 64, 64, dtype=torch.long),
    }


MADE: dict[str, Callable[[], Made]] = {
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
    "d_fine": d_fine,
    "deimv2": deimv2,
    "lw_detr": lw_detr,
    "rf_detr": rf_detr,
}
