"""Readers of pages, and detectors that are told what to look for."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers as library

from by_hand.detectors import HGNET, RESNET, SWIN
from by_hand.parts import PLAIN, PLAIN_WORDS, Given, Made, built, noise, token_ids


def _boxes() -> Given:
    return {
        "encoder_hidden_dim": 32, "encoder_in_channels": [16, 24, 32], "feat_strides": [8, 16, 32],
        "encoder_layers": 1, "encoder_ffn_dim": 48, "encoder_attention_heads": 2, "encode_proj_layers": [2],
        "d_model": 32, "num_queries": 13, "decoder_in_channels": [32, 32, 32], "decoder_ffn_dim": 48,
        "decoder_layers": 2, "decoder_attention_heads": 2, "num_feature_levels": 3, "num_denoising": 0,
    }  # fmt: skip


def pp_doclayout_v2() -> Made:
    """Build boxes of a page, and the order in which they are read."""
    order = {
        **PLAIN, "rel_pos_bins": 8, "rel_2d_pos_bins": 8, "coordinate_size": 6, "shape_size": 4,
        "relation_bias_embed_dim": 4, "global_pointer_head_size": 8,
    }  # fmt: skip
    config = library.PPDocLayoutV2Config(backbone_config=RESNET, reading_order_config=order, **_boxes())
    return built("PPDocLayoutV2Model", config), {"pixel_values": noise(2, 3, 64, 64)}


def pp_doclayout_v3() -> Made:
    """Build boxes and masks of a page."""
    body = {**HGNET, "out_features": ["stage1", "stage2", "stage3", "stage4"]}
    config = library.PPDocLayoutV3Config(
        backbone_config=body, **_boxes(), mask_feature_channels=[8, 8], x4_feat_dim=8, num_prototypes=4,
        global_pointer_head_size=8,
    )  # fmt: skip
    return built("PPDocLayoutV3Model", config), {"pixel_values": noise(2, 3, 64, 64)}


def pp_doclayout_v4() -> Made:
    """Build corners of the parts of a page."""
    sizes = {**_boxes(), "hidden_size": 32}
    del sizes["d_model"]
    config = library.PPDocLayoutV4Config(backbone_config=HGNET, **sizes, global_pointer_head_size=8)
    return built("PPDocLayoutV4Model", config), {"pixel_values": noise(2, 3, 64, 64)}


def omdet_turbo() -> Made:
    """Build queries that read a picture together with the names of what is looked for."""
    words = {"model_type": "clip_text_model", **PLAIN_WORDS, "hidden_size": 48, "max_position_embeddings": 16}
    body = {"model_type": "swin", **SWIN, "out_features": ["stage2", "stage3", "stage4"]}
    config = library.OmDetTurboConfig(
        text_config=words, backbone_config=body, image_size=64, apply_layernorm_after_vision_backbone=False,
        text_projection_in_dim=48, text_projection_out_dim=48, task_encoder_hidden_dim=32, class_embed_dim=48,
        num_queries=13, encoder_hidden_dim=32, vision_features_channels=[32, 32, 32],
        encoder_in_channels=[32, 64, 128], encoder_attention_heads=4, encoder_dim_feedforward=48,
        decoder_hidden_dim=32, decoder_num_heads=4, decoder_num_layers=2, decoder_dim_feedforward=48,
    )  # fmt: skip
    names = torch.cat([token_ids(6), token_ids(6, seed=3)])
    task = token_ids(7, seed=4)
    return built("OmDetTurboForObjectDetection", config), {
        "pixel_values": noise(2, 3, 64, 64),
        "classes_input_ids": names,
        "classes_attention_mask": torch.ones_like(names),
        "tasks_input_ids": task,
        "tasks_attention_mask": torch.ones_like(task),
        "classes_structure": torch.tensor([2, 2]),
    }


def slanext() -> Made:
    """Build a windowed encoder of a table's picture; its cells are written by a recurrent network."""
    eye = {
        "hidden_size": 32, "output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
        "image_size": 64, "patch_size": 8, "window_size": 3, "global_attn_indexes": [1], "mlp_dim": 48,
    }  # fmt: skip
    config = library.SLANeXtConfig(
        vision_config=eye, post_conv_in_channels=16, post_conv_out_channels=16, out_channels=12,
        hidden_size=16, max_text_length=4,
    )  # fmt: skip
    return built("SLANeXtForTableRecognition", config), {"pixel_values": noise(2, 3, 64, 64)}


def efficientnet() -> Made:
    """Build convolutions only: no attention."""
    config = library.EfficientNetConfig(
        image_size=64, width_coefficient=1.0, depth_coefficient=1.0, kernel_sizes=[3, 3],
        in_channels=[32, 16], out_channels=[16, 32], strides=[1, 2], num_block_repeats=[1, 1],
        expand_ratios=[1, 6], hidden_dim=1280,
    )  # fmt: skip
    return built("EfficientNetModel", config), {"pixel_values": noise(2, 3, 64, 64)}


def pp_ocrv5_mobile_det() -> Made:
    """Build a finder of lines: convolutions only."""
    config = library.PPOCRV5MobileDetConfig()
    return built("PPOCRV5MobileDetForObjectDetection", config), {"pixel_values": noise(1, 3, 64, 64)}


def slanet() -> Made:
    """Build a reader of tables whose cells look back with additive attention at a convolutional map."""
    config = library.SLANetConfig(max_text_length=4)
    return built("SLANetForTableRecognition", config), {"pixel_values": noise(1, 3, 64, 64)}


def uvdoc() -> Made:
    """Build a straightener of pages: convolutions only."""
    body = {"model_type": "uvdoc_backbone", "out_features": [f"stage{place}" for place in range(1, 7)]}
    config = library.UVDocConfig(backbone_config=body)
    return built("UVDocModel", config), {"pixel_values": noise(1, 3, 64, 64)}


MADE: dict[str, Callable[[], Made]] = {
    "efficientnet": efficientnet,
    "omdet-turbo": omdet_turbo,
    "pp_ocrv5_mobile_det": pp_ocrv5_mobile_det,
    "pp_doclayout_v2": pp_doclayout_v2,
    "pp_doclayout_v3": pp_doclayout_v3,
    "pp_doclayout_v4": pp_doclayout_v4,
    "slanet": slanet,
    "slanext": slanext,
    "uvdoc": uvdoc,
}
