"""Objects that are followed through a film, with a memory of the frames before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as library

from by_hand.detectors import hiera
from by_hand.parts import PLAIN, Given, Made, built, noise

MEMORY: Given = {
    "memory_attention_hidden_size": 128,
    "memory_attention_num_layers": 2,
    "memory_encoder_hidden_size": 128,
    "memory_encoder_output_channels": 64,
    "mask_downsampler_embed_dim": 128,
    "memory_fuser_embed_dim": 128,
    "memory_fuser_intermediate_dim": 48,
    "memory_fuser_num_layers": 1,
}
FORWARD: Given = {"memory_attention_feed_forward_hidden_size": 48}


def _asked(size: int, patch: int) -> Given:
    return {
        "prompt_encoder_config": {
            "hidden_size": 128, "image_size": size, "patch_size": patch, "mask_input_channels": 4,
        },
        "mask_decoder_config": {
            "hidden_size": 128, "mlp_dim": 48, "num_attention_heads": 4, "iou_head_hidden_dim": 16,
        },
    }  # fmt: skip


def _second_frame(kind: str, config: Any, size: int) -> Made:
    """Follow one object from the first frame to the second; what was seen of a frame is not kept."""
    model = built(f"{kind}Model", config)
    session = getattr(library, f"{kind}InferenceSession")(
        video=noise(2, 3, size, size), video_height=size, video_width=size, dtype=torch.float32
    )
    session.cache.cache_vision_features = lambda *_: None
    place = session.obj_id_to_idx(1)
    middle = {
        "point_coords": torch.full((1, 1, 1, 2), size / 2),
        "point_labels": torch.ones(1, 1, 1, dtype=torch.int32),
    }
    session.add_point_inputs(place, 0, middle)
    session.obj_with_new_inputs = [1]
    with torch.no_grad():
        model(inference_session=session, frame_idx=0)
    return model, {"inference_session": session, "frame_idx": 1}


def sam2_video() -> Made:
    """Build a hierarchical encoder of frames and a memory."""
    eye = {
        "model_type": "sam2_vision_model",
        "backbone_config": {"model_type": "sam2_hiera_det_model", **hiera()},
        "backbone_channel_list": [96, 48, 24, 12],
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "fpn_hidden_size": 128,
    }
    config = library.Sam2VideoConfig(
        vision_config=eye, **_asked(128, 16), **MEMORY, **FORWARD, image_size=128,
        memory_attention_rope_feat_sizes=[8, 8],
    )  # fmt: skip
    return _second_frame("Sam2Video", config, 128)


def sam3_tracker_video() -> Made:
    """Build windows and one layer over all of a frame, and a memory."""
    body = {
        **PLAIN, "model_type": "sam3_vit_model", "image_size": 112, "patch_size": 14, "window_size": 4,
        "global_attn_indexes": [1], "pretrain_image_size": 112,
    }  # fmt: skip
    eye = {
        "model_type": "sam3_vision_model", "backbone_config": body, "fpn_hidden_size": 128,
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
    }  # fmt: skip
    config = library.Sam3TrackerVideoConfig(
        vision_config=eye, **_asked(112, 14), **MEMORY, **FORWARD, image_size=112,
        memory_attention_rope_feat_sizes=[8, 8], mask_downsampler_total_stride=16,
    )  # fmt: skip
    return _second_frame("Sam3TrackerVideo", config, 112)


def _edge() -> Given:
    return {
        "model_type": "edgetam_vision_model",
        "backbone_config": {
            "model_type": "timm_wrapper", "architecture": "repvit_m1", "num_classes": 0,
            "model_args": {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
        },
        "backbone_channel_list": [384, 192, 96, 48],
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "fpn_hidden_size": 128,
    }  # fmt: skip


def edgetam() -> Made:
    """Build a convolutional encoder, and the two-way decoder of masks."""
    config = library.EdgeTamConfig(vision_config=_edge(), **_asked(128, 16))
    return built("EdgeTamModel", config), {
        "pixel_values": noise(1, 3, 128, 128),
        "input_points": torch.tensor([[[[40.0, 50.0]]]]),
        "input_labels": torch.ones(1, 1, 1, dtype=torch.long),
    }


def edgetam_video() -> Made:
    """Build a memory that is read by a few latent tokens."""
    config = library.EdgeTamVideoConfig(
        vision_config=_edge(), **_asked(128, 16), **MEMORY, image_size=128,
        memory_attention_mlp_hidden_size=48, memory_attention_rope_feat_sizes=[8, 8],
        memory_attention_rope_k_sizes=[4, 4], perceiver_resampler_num_latents=16,
        perceiver_resampler_num_latents_2d=16, perceiver_resampler_hidden_size=64,
        perceiver_resampler_mlp_intermediate_size=24, perceiver_resampler_attention_head_dim=64,
    )  # fmt: skip
    return _second_frame("EdgeTamVideo", config, 128)


def videomt() -> Made:
    """Build frames whose queries come from the frame before."""
    sizes = {name: value for name, value in PLAIN.items() if name != "intermediate_size"}
    config = library.VideomtConfig(
        **sizes, image_size=32, patch_size=8, num_blocks=1, num_queries=5, mlp_ratio=2
    )
    return built("VideomtForUniversalSegmentation", config), {"pixel_values_videos": noise(1, 3, 3, 32, 32)}


MADE: dict[str, Callable[[], Made]] = {
    "edgetam": edgetam,
    "edgetam_video": edgetam_video,
    "sam2_video": sam2_video,
    "sam3_tracker_video": sam3_tracker_video,
    "videomt": videomt,
}
