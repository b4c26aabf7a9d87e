"""More families whose small configs and inputs are written out."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers as library
from by_hand import PLAIN, PLAIN_WORDS, WORDS, Made, _ids, _model, _noise, _words

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
    return _model(f"{kind}Model", config), {"pixel_values": _noise(2, 3, 64, 64)}


def d_fine() -> Made:
    """Build queries that refine distributions of box edges."""
    return _fine("DFine")


def deimv2() -> Made:
    """Build the same as D-FINE, with gates instead of sums."""
    return _fine("Deimv2")


def gemma3n_text() -> Made:
    """Build text with several streams of states, and layers that share keys and values."""
    config = library.Gemma3nTextConfig(
        **{**WORDS, "num_hidden_layers": 4},
        head_dim=8,
        sliding_window=5,
        layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
        vocab_size_per_layer_input=256,
        hidden_size_per_layer_input=8,
        num_kv_shared_layers=2,
        laurel_rank=4,
        altup_num_inputs=2,
        activation_sparsity_pattern=[0.9, 0.0, 0.0, 0.0],
    )
    return _model("Gemma3nTextModel", config), _words()


def musicgen() -> Made:
    """Build codebooks of sound that read a text."""
    text = {"model_type": "t5", "vocab_size": 256, "d_model": 32, "d_kv": 8, "d_ff": 48}
    text |= {"num_layers": 2, "num_heads": 4}
    sound = {"model_type": "encodec", "hidden_size": 16, "num_filters": 4, "codebook_size": 64}
    sound |= {"codebook_dim": 16, "num_lstm_layers": 1}
    decoder = {**PLAIN, "ffn_dim": 48, "vocab_size": 64, "num_codebooks": 4, "pad_token_id": 64}
    decoder |= {"bos_token_id": 64, "max_position_embeddings": 32}
    config = library.MusicgenConfig(text_encoder=text, audio_encoder=sound, decoder=decoder)
    codes = torch.randint(0, 64, (8, 9), generator=torch.Generator().manual_seed(4))
    return _model("MusicgenForConditionalGeneration", config), {**_words(), "decoder_input_ids": codes}


def align() -> Made:
    """Build text attention beside a convolutional image encoder."""
    vision = {
        "image_size": 64,
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
        "kernel_sizes": [3, 3],
        "in_channels": [32, 16],
        "out_channels": [16, 32],
        "strides": [1, 2],
        "num_block_repeats": [1, 1],
        "expand_ratios": [1, 6],
        "hidden_dim": 32,
    }
    config = library.AlignConfig(text_config=PLAIN_WORDS, vision_config=vision, projection_dim=32)
    return _model("AlignModel", config), {**_words(), "pixel_values": _noise(2, 3, 64, 64)}


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
    return _model("EfficientLoFTRModel", config), {"pixel_values": _noise(2, 2, 3, 64, 48)}


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
    return _model("ZoeDepthForDepthEstimation", config), {"pixel_values": _noise(2, 3, 32, 32)}


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
    return _model("SuperGlueForKeypointMatching", config), {"pixel_values": _noise(1, 2, 3, 64, 48)}


def xmod() -> Made:
    """Build adapters of one language."""
    config = library.XmodConfig(**PLAIN_WORDS, languages=["en_XX"], default_language="en_XX")
    return _model("XmodModel", config), _words()


def xlstm() -> Made:
    """Build matrix memories: no attention."""
    config = library.xLSTMConfig(
        vocab_size=256,
        hidden_size=64,
        num_heads=4,
        num_hidden_layers=2,
        num_blocks=2,
        embedding_dim=64,
        qk_dim_factor=1.0,
        v_dim_factor=1.0,
    )
    return _model("xLSTMModel", config), {"input_ids": _ids(64)}


def timesfm() -> Made:
    """Build patches of a time series."""
    config = library.TimesFmConfig(
        patch_length=4,
        context_length=32,
        horizon_length=4,
        num_hidden_layers=2,
        hidden_size=32,
        intermediate_size=48,
        head_dim=8,
        num_attention_heads=4,
    )
    return _model("TimesFmModel", config), {
        "past_values": _noise(2, 32),
        "past_values_padding": torch.zeros(2, 32, dtype=torch.long),
        "freq": torch.zeros(2, 1, dtype=torch.long),
    }


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
    return _model("VideoPrismVisionModel", config), {"pixel_values_videos": _noise(2, 3, 3, 32, 32)}


def vision_text_dual_encoder() -> Made:
    """Build two encoders side by side."""
    vision = {"model_type": "vit", **PLAIN, "image_size": 32, "patch_size": 8}
    config = library.VisionTextDualEncoderConfig(
        projection_dim=32, vision_config=vision, text_config={"model_type": "bert", **PLAIN_WORDS}
    )
    return _model("VisionTextDualEncoderModel", config), {**_words(), "pixel_values": _noise(2, 3, 32, 32)}


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
    return _model("VitMatteForImageMatting", config), {"pixel_values": _noise(2, 4, 64, 64)}


def nougat() -> Made:
    """Build a windowed image encoder and a text decoder."""
    vision = {"model_type": "donut-swin", "image_size": 64, "patch_size": 4, "embed_dim": 16}
    vision |= {"depths": [1, 1], "num_heads": [2, 4], "window_size": 4}
    text = {
        "model_type": "mbart",
        "vocab_size": 256,
        "d_model": 32,
        "decoder_layers": 2,
        "decoder_attention_heads": 4,
        "decoder_ffn_dim": 48,
        "max_position_embeddings": 32,
        "is_decoder": True,
        "add_cross_attention": True,
    }
    config = library.VisionEncoderDecoderConfig(encoder=vision, decoder=text)
    config.pad_token_id, config.decoder_start_token_id = 0, 1
    return _model("VisionEncoderDecoderModel", config), {
        "pixel_values": _noise(2, 3, 64, 64),
        "decoder_input_ids": _ids(7),
    }


def perception_lm() -> Made:
    """Build a timm image encoder and a text decoder."""
    vision = {
        "model_type": "timm_wrapper",
        "architecture": "vit_pe_core_large_patch14_336",
        "do_pooling": False,
        "num_classes": 0,
        "model_args": {"embed_dim": 32, "img_size": [28, 28], "depth": 2, "num_heads": 4, "global_pool": ""},
        "global_pool": "map",
    }
    vision["model_args"] |= {"use_post_transformer_norm": False, "ref_feat_shape": [2, 2]}
    config = library.PerceptionLMConfig(
        vision_config=vision,
        text_config={"model_type": "llama", **WORDS},
        vision_use_cls_token=True,
        projector_pooling_ratio=1,
        image_token_id=200,
        video_token_id=201,
    )
    ids = torch.cat([torch.full((2, 4), 200), _ids(7) % 190 + 5], 1)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return _model("PerceptionLMModel", config), {**given, "pixel_values": _noise(2, 1, 3, 28, 28)}


def fast_vlm() -> Made:
    """Build a convolutional and attending image encoder of timm, and a text decoder."""
    vision = {
        "model_type": "timm_wrapper",
        "architecture": "fastvit_mci0",
        "do_pooling": True,
        "global_pool": "avg",
        "hidden_size": 1024,
        "num_classes": 0,
        "initializer_range": 0.02,
        "model_args": {"inference_mode": True},
    }
    config = library.FastVlmConfig(
        vision_config=vision, text_config={"model_type": "qwen2", **WORDS}, image_token_index=200
    )
    model = _model("FastVlmModel", config)
    size = 64
    with torch.no_grad():
        found = model.get_image_features(
            pixel_values=_noise(2, 3, size, size), return_dict=True
        ).pooler_output
    count = found[0].shape[0]
    ids = torch.cat([torch.full((2, count), 200), _ids(7) % 190 + 5], 1)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return model, {**given, "pixel_values": _noise(2, 3, size, size)}


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
    return _model("LwDetrModel", config), {
        "pixel_values": _noise(2, 3, 64, 64),
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
    return _model("RfDetrModel", config), {
        "pixel_values": _noise(2, 3, 64, 64),
        "pixel_mask": torch.ones(2, 64, 64, dtype=torch.long),
    }


def dinat() -> Made:
    """Build neighbourhood attention, which needs a package of its own."""
    config = library.DinatConfig(embed_dim=16, depths=[1, 1], num_heads=[2, 4], patch_size=4)
    return _model("DinatModel", config), {"pixel_values": _noise(2, 3, 64, 64)}


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
    return _model("Swin2SRModel", config), {"pixel_values": _noise(2, 3, 32, 32)}


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
    return _model("SegGptModel", config), {
        "pixel_values": _noise(*size),
        "prompt_pixel_values": _noise(*size, seed=3),
        "prompt_masks": _noise(*size, seed=4),
    }


def _recogniser(kind: str) -> Made:
    model = _model(f"{kind}ForTextRecognition", getattr(library, f"{kind}Config")())
    return model, {"pixel_values": _noise(2, 3, 48, 320)}


def pp_ocrv5_server_rec() -> Made:
    """Build the recogniser's head attends; its body is a convolutional network."""
    return _recogniser("PPOCRV5ServerRec")


def pp_ocrv5_mobile_rec() -> Made:
    """Build the same as the server's, with a smaller body."""
    made = library.PPOCRV5MobileRecConfig()
    return _model("PPOCRV5MobileRecForTextRecognition", made), {"pixel_values": _noise(2, 3, 80, 320)}


def pp_ocrv6_small_rec() -> Made:
    """Build the same as version 5."""
    return _recogniser("PPOCRV6SmallRec")


def pp_ocrv6_tiny_rec() -> Made:
    """Build its head has no attention."""
    return _recogniser("PPOCRV6TinyRec")


MADE: dict[str, Callable[[], Made]] = {
    "d_fine": d_fine,
    "deimv2": deimv2,
    "gemma3n": gemma3n_text,
    "musicgen": musicgen,
    "align": align,
    "efficientloftr": efficientloftr,
    "zoedepth": zoedepth,
    "superglue": superglue,
    "xmod": xmod,
    "xlstm": xlstm,
    "timesfm": timesfm,
    "videoprism": videoprism,
    "vision-text-dual-encoder": vision_text_dual_encoder,
    "vitmatte": vitmatte,
    "nougat": nougat,
    "perception_lm": perception_lm,
    "fast_vlm": fast_vlm,
    "lw_detr": lw_detr,
    "rf_detr": rf_detr,
    "dinat": dinat,
    "swin2sr": swin2sr,
    "seggpt": seggpt,
    "pp_ocrv5_server_rec": pp_ocrv5_server_rec,
    "pp_ocrv5_mobile_rec": pp_ocrv5_mobile_rec,
    "pp_ocrv6_small_rec": pp_ocrv6_small_rec,
    "pp_ocrv6_tiny_rec": pp_ocrv6_tiny_rec,
}
