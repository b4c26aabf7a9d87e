"""Models of pictures and words together."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers as library

from by_hand.parts import PLAIN, PLAIN_WORDS, WORDS, Made, built, noise, token_ids, word_inputs


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
    return built("XCLIPModel", config), {**word_inputs(), "pixel_values": noise(2, 4, 3, 32, 32)}


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
    given = {**word_inputs(), "bbox": torch.cat([box, box + 0.2], -1), "pixel_values": noise(2, 3, 32, 32)}
    return built("UdopModel", config), {**given, "decoder_input_ids": token_ids(5)}


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
    return built("Kosmos2Model", config), {
        **word_inputs(15),
        "pixel_values": noise(2, 3, 32, 32),
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
    return built("IdeficsModel", config), {
        **word_inputs(),
        "pixel_values": noise(2, 1, 3, 32, 32),
        "image_attention_mask": torch.ones(2, 11, 1, dtype=torch.long),
    }


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
    return built("AlignModel", config), {**word_inputs(), "pixel_values": noise(2, 3, 64, 64)}


def vision_text_dual_encoder() -> Made:
    """Build two encoders side by side."""
    vision = {"model_type": "vit", **PLAIN, "image_size": 32, "patch_size": 8}
    config = library.VisionTextDualEncoderConfig(
        projection_dim=32, vision_config=vision, text_config={"model_type": "bert", **PLAIN_WORDS}
    )
    return built("VisionTextDualEncoderModel", config), {**word_inputs(), "pixel_values": noise(2, 3, 32, 32)}


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
    return built("VisionEncoderDecoderModel", config), {
        "pixel_values": noise(2, 3, 64, 64),
        "decoder_input_ids": token_ids(7),
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
    ids = torch.cat([torch.full((2, 4), 200), token_ids(7) % 190 + 5], 1)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return built("PerceptionLMModel", config), {**given, "pixel_values": noise(2, 1, 3, 28, 28)}


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
    model = built("FastVlmModel", config)
    size = 64
    with torch.no_grad():
        found = model.get_image_features(pixel_values=noise(2, 3, size, size), return_dict=True).pooler_output
    count = found[0].shape[0]
    ids = torch.cat([torch.full((2, count), 200), token_ids(7) % 190 + 5], 1)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return model, {**given, "pixel_values": noise(2, 3, size, size)}


def colqwen2() -> Made:
    """Build a reader of pages on a model of words and pictures, with words only."""
    ropes = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
    eye = {
        "depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2, "patch_size": 7,
        "spatial_merge_size": 2, "temporal_patch_size": 2,
    }  # fmt: skip
    whole = library.Qwen2VLConfig(
        text_config={**WORDS, "max_position_embeddings": 64, "rope_parameters": ropes}, vision_config=eye,
        image_token_id=39, vision_start_token_id=40, vision_end_token_id=41, video_token_id=42,
    )  # fmt: skip
    return built(
        "ColQwen2ForRetrieval", library.ColQwen2Config(vlm_config=whole, embedding_dim=16)
    ), word_inputs()


def voxtral_realtime() -> Made:
    """Build speech that is written down while it is heard."""
    ear = {
        **PLAIN_WORDS,
        "num_mel_bins": 16,
        "head_dim": 8,
        "sliding_window": 16,
        "max_position_embeddings": 64,
    }
    words = {"model_type": "voxtral_realtime_text", **WORDS, "head_dim": 8, "max_position_embeddings": 64}
    config = library.VoxtralRealtimeConfig(
        audio_config=ear, text_config=words, hidden_size=32, audio_length_per_tok=8, downsample_factor=4
    )
    return built("VoxtralRealtimeForConditionalGeneration", config), {
        "input_ids": token_ids(8),
        "input_features": noise(2, 16, 64),
        "num_delay_tokens": 6,
    }


MADE: dict[str, Callable[[], Made]] = {
    "xclip": xclip,
    "udop": udop,
    "kosmos-2": kosmos_2,
    "idefics": idefics,
    "align": align,
    "vision-text-dual-encoder": vision_text_dual_encoder,
    "nougat": nougat,
    "perception_lm": perception_lm,
    "fast_vlm": fast_vlm,
    "colqwen2": colqwen2,
    "voxtral_realtime": voxtral_realtime,
}
