"""Models of pictures and films."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers as library

from by_hand.parts import PLAIN, PLAIN_WORDS, Made, built, noise, token_ids


def siglip2() -> Made:
    """Build pictures of two shapes, flattened into patches, one of them padded."""
    words = {**PLAIN_WORDS, "max_position_embeddings": 32, "projection_size": 32}
    patches = {**PLAIN, "patch_size": 4, "num_patches": 25}
    config = library.Siglip2Config(text_config=words, vision_config=patches)
    mask = torch.ones(2, 30, dtype=torch.long)
    mask[1, 24:] = 0
    return built("Siglip2Model", config), {
        "input_ids": token_ids(),
        "pixel_values": noise(2, 30, 48),
        "pixel_attention_mask": mask,
        "spatial_shapes": torch.tensor([[5, 6], [4, 6]]),
    }


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
    return built("VJEPA2Model", config), {"pixel_values_videos": noise(2, 4, 3, 32, 32)}


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
    model = built("VitPoseForPoseEstimation", library.VitPoseConfig(backbone_config=backbone))
    return model, {"pixel_values": noise(2, 3, 64, 48)}


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
    return built("DepthProModel", config), {"pixel_values": noise(1, 3, 64, 64)}


def efficientloftr() -> Made:
    """Build two pictures, pooled, that attend to themselves and to each other."""
    config = library.EfficientLoFTRConfig(
        stage_num_blocks=[1, 1, 1],
        out_features=[8, 16, 64],
        stage_stride=[2, 1, 2],
        hidden_size=64,
        num_attention_heads=8,
        num_attention_layers=2,
        q_aggregation_kernel_size=1,
        q_aggregation_stride=1,
        kv_aggregation_kernel_size=1,
        kv_aggregation_stride=1,
    )
    return built("EfficientLoFTRModel", config), {"pixel_values": noise(2, 2, 3, 64, 48)}


def zoedepth() -> Made:
    """Build a BEiT that is read at four depths."""
    backbone = {
        "model_type": "beit",
        **PLAIN,
        "num_hidden_layers": 4,
        "image_size": 32,
        "patch_size": 8,
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
        "reshape_hidden_states": False,
        "use_relative_position_bias": True,
    }
    config = library.ZoeDepthConfig(
        backbone_config=backbone,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        bottleneck_features=16,
        bin_embedding_dim=8,
        num_relative_features=4,
        num_attractors=[4, 2, 1, 1],
        bin_configurations=[{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0, "name": "nyu"}],
    )
    return built("ZoeDepthForDepthEstimation", config), {"pixel_values": noise(2, 3, 32, 32)}


def superglue() -> Made:
    """Build points of two pictures that attend to themselves and to each other."""
    points = {
        "model_type": "superpoint",
        "encoder_hidden_sizes": [8, 8, 16, 16],
        "decoder_hidden_size": 16,
        "keypoint_decoder_dim": 65,
        "descriptor_decoder_dim": 32,
        "keypoint_threshold": 0.005,
        "max_keypoints": 20,
        "border_removal_distance": 4,
    }
    config = library.SuperGlueConfig(
        keypoint_detector_config=points,
        hidden_size=32,
        keypoint_encoder_sizes=[16, 32],
        gnn_layers_types=["self", "cross"],
        num_attention_heads=4,
        sinkhorn_iterations=5,
    )
    return built("SuperGlueForKeypointMatching", config), {"pixel_values": noise(1, 2, 3, 64, 48)}


def videoprism() -> Made:
    """Build a film in space, then in time."""
    config = library.VideoPrismVisionConfig(
        image_size=32,
        num_frames=3,
        tubelet_size=[1, 8, 8],
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=48,
        num_spatial_layers=2,
        num_temporal_layers=2,
        num_auxiliary_layers=1,
    )
    return built("VideoPrismVisionModel", config), {"pixel_values_videos": noise(2, 3, 3, 32, 32)}


def vitmatte() -> Made:
    """Build windows without positions over the picture's border."""
    backbone = {
        "model_type": "vitdet",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "mlp_ratio": 2,
        "num_channels": 4,
        "image_size": 64,
        "patch_size": 16,
        "window_size": 3,
        "window_block_indices": [0],
        "residual_block_indices": [],
        "use_relative_position_embeddings": True,
        "out_features": ["stage2"],
    }
    config = library.VitMatteConfig(
        backbone_config=backbone,
        hidden_size=32,
        convstream_hidden_sizes=[8, 8, 16],
        fusion_hidden_sizes=[16, 16, 8, 4],
    )
    return built("VitMatteForImageMatting", config), {"pixel_values": noise(2, 4, 64, 64)}


def dinat() -> Made:
    """Build neighbourhood attention, which needs a package of its own."""
    config = library.DinatConfig(embed_dim=16, depths=[1, 1], num_heads=[2, 4], patch_size=4)
    return built("DinatModel", config), {"pixel_values": noise(2, 3, 64, 64)}


def swin2sr() -> Made:
    """Build windows for a larger picture."""
    config = library.Swin2SRConfig(
        image_size=32,
        patch_size=1,
        embed_dim=16,
        depths=[2, 1],
        num_heads=[2, 4],
        window_size=4,
        mlp_ratio=2.0,
    )
    return built("Swin2SRModel", config), {"pixel_values": noise(2, 3, 32, 32)}


def seggpt() -> Made:
    """Build a prompt picture above the picture."""
    config = library.SegGptConfig(
        **{k: v for k, v in PLAIN.items() if k != "intermediate_size"},
        image_size=[64, 32],
        patch_size=8,
        pretrain_image_size=32,
        decoder_hidden_size=8,
        mlp_dim=48,
        intermediate_hidden_state_indices=[0, 1],
        merge_index=0,
    )
    size = (2, 3, 32, 32)
    return built("SegGptModel", config), {
        "pixel_values": noise(*size),
        "prompt_pixel_values": noise(*size, seed=3),
        "prompt_masks": noise(*size, seed=4),
    }


def _recogniser(kind: str) -> Made:
    model = built(f"{kind}ForTextRecognition", getattr(library, f"{kind}Config")())
    return model, {"pixel_values": noise(2, 3, 48, 320)}


def pp_ocrv5_server_rec() -> Made:
    """Build the recogniser's head attends; its body is a convolutional network."""
    return _recogniser("PPOCRV5ServerRec")


def pp_ocrv5_mobile_rec() -> Made:
    """Build the same as the server's, with a smaller body."""
    made = library.PPOCRV5MobileRecConfig()
    return built("PPOCRV5MobileRecForTextRecognition", made), {"pixel_values": noise(2, 3, 80, 320)}


def pp_ocrv6_small_rec() -> Made:
    """Build the same as version 5."""
    return _recogniser("PPOCRV6SmallRec")


def pp_ocrv6_tiny_rec() -> Made:
    """Build its head has no attention."""
    return _recogniser("PPOCRV6TinyRec")


def pix2struct() -> Made:
    """Build a picture that goes in as a list of patches with their places."""
    words = {"vocab_size": 256, "hidden_size": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    patches = {**PLAIN, "patch_embed_hidden_size": 27, "d_ff": 48, "d_kv": 8, "seq_len": 64}
    config = library.Pix2StructConfig(text_config=words, vision_config=patches)
    flat = noise(2, 12, 29)
    flat[..., 0], flat[..., 1] = torch.arange(12) // 4 + 1, torch.arange(12) % 4 + 1
    return built("Pix2StructForConditionalGeneration", config), {
        "flattened_patches": flat,
        "attention_mask": torch.ones(2, 12),
        "decoder_input_ids": token_ids(5),
    }


def vitpose_backbone() -> Made:
    """Build the body of vitpose alone."""
    config = library.VitPoseBackboneConfig(
        **PLAIN, image_size=[64, 48], patch_size=[8, 8], out_indices=[2], num_experts=1
    )
    return built("VitPoseBackbone", config), {"pixel_values": noise(2, 3, 64, 48)}


def timm_backbone() -> Made:
    """Build windows that shift, made by timm."""
    config = library.TimmBackboneConfig(
        backbone="swin_tiny_patch4_window7_224", use_pretrained_backbone=False, num_channels=3
    )
    return built("TimmBackbone", config), {"pixel_values": noise(1, 3, 224, 224)}


def timm_wrapper() -> Made:
    """Build a vision transformer of timm inside the library's own model."""
    sizes = {"depth": 2, "embed_dim": 48, "num_heads": 3, "img_size": 64}
    config = library.TimmWrapperConfig(architecture="vit_tiny_patch16_224", model_args=sizes)
    return built("TimmWrapperModel", config), {"pixel_values": noise(2, 3, 64, 64)}


def sapiens2() -> Made:
    """Build layers with all heads of their own and layers that share keys."""
    config = library.Sapiens2Config(
        **PLAIN, patch_size=8, image_size=32, num_key_value_heads_per_layer=[4, 2],
        num_key_value_attention_heads=2, num_first_full_attention_layers=1, num_last_full_attention_layers=0,
    )  # fmt: skip
    return built("Sapiens2Model", config), {"pixel_values": noise(2, 3, 32, 32)}


def tvp() -> Made:
    """Build a film and the words that are looked for in it."""
    body = {
        "model_type": "resnet", "hidden_sizes": [16, 32], "depths": [1, 1], "embedding_size": 16,
        "out_features": ["stage2"],
    }  # fmt: skip
    config = library.TvpConfig(
        **PLAIN, vocab_size=256, backbone_config=body, max_img_size=64, visual_prompt_size=8, num_frames=2
    )
    return built("TvpModel", config), {
        "pixel_values": noise(1, 2, 3, 64, 64),
        "input_ids": token_ids()[:1],
        "attention_mask": torch.ones(1, 11, dtype=torch.long),
    }


MADE: dict[str, Callable[[], Made]] = {
    "siglip2": siglip2,
    "vjepa2": vjepa2,
    "vitpose": vitpose,
    "depth_pro": depth_pro,
    "efficientloftr": efficientloftr,
    "zoedepth": zoedepth,
    "superglue": superglue,
    "videoprism": videoprism,
    "vitmatte": vitmatte,
    "dinat": dinat,
    "swin2sr": swin2sr,
    "seggpt": seggpt,
    "pp_ocrv5_server_rec": pp_ocrv5_server_rec,
    "pp_ocrv5_mobile_rec": pp_ocrv5_mobile_rec,
    "pp_ocrv6_small_rec": pp_ocrv6_small_rec,
    "pp_ocrv6_tiny_rec": pp_ocrv6_tiny_rec,
    "pix2struct": pix2struct,
    "timm_backbone": timm_backbone,
    "timm_wrapper": timm_wrapper,
    "vitpose_backbone": vitpose_backbone,
    "sapiens2": sapiens2,
    "tvp": tvp,
}
