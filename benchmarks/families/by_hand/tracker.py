"""Masks that are asked for by points, on the body of the third generation."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers as library

from by_hand.parts import Made, built, noise


def sam3_tracker() -> Made:
    """Build windows, one layer over all, and the two-way decoder of masks."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    body = {
        **sizes, "model_type": "sam3_vit_model", "intermediate_size": 48, "image_size": 112, "patch_size": 14,
        "window_size": 4, "global_attn_indexes": [1], "pretrain_image_size": 112,
    }  # fmt: skip
    eye = {
        "model_type": "sam3_vision_model", "backbone_config": body, "fpn_hidden_size": 32,
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
    }  # fmt: skip
    config = library.Sam3TrackerConfig(
        vision_config=eye,
        prompt_encoder_config={
            "hidden_size": 32,
            "image_size": 112,
            "patch_size": 14,
            "mask_input_channels": 4,
        },
        mask_decoder_config={**sizes, "mlp_dim": 48, "iou_head_hidden_dim": 16},
    )
    return built("Sam3TrackerModel", config), {
        "pixel_values": noise(1, 3, 112, 112),
        "input_points": torch.tensor([[[[40.0, 50.0]]]]),
        "input_labels": torch.ones(1, 1, 1, dtype=torch.long),
    }


MADE: dict[str, Callable[[], Made]] = {"sam3_tracker": sam3_tracker}
