"""Models of sound: codecs, and models that hear and write."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers as library

from by_hand.parts import (
    PLAIN,
    SMALL,
    WORDS,
    Given,
    Made,
    built,
    noise,
    placed,
    token_ids,
    word_inputs,
)

ROTATED: Given = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}


def _omni(kind: str, eye: Given, ear: Given, words: Given, *, frames: int = 40) -> Made:
    """Build what listens, looks and thinks; what speaks is a model of its own."""
    config = getattr(library, f"{kind}ThinkerConfig")(
        text_config={**WORDS, "rope_parameters": ROTATED, **words},
        vision_config={
            "depth": 2, "hidden_size": 32, "num_heads": 4, "intermediate_size": 48, "patch_size": 7,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 32, **eye,
        },
        audio_config={
            "num_mel_bins": 16, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 48,
            "d_model": 32, "output_dim": 32, "max_source_positions": 64, **ear,
        },
        audio_start_token_id=204,
        user_token_id=206,
    )  # fmt: skip
    config.image_token_id, config.video_token_id, config.audio_token_id = 200, 201, 202
    config.vision_start_token_id = 203
    model = built(f"{kind}ThinkerForConditionalGeneration", config)
    sound = {
        "input_features": noise(2, 16, frames),
        "feature_attention_mask": torch.ones(2, frames, dtype=torch.long),
    }
    with torch.no_grad():
        heard = model.get_audio_features(**sound, return_dict=True).last_hidden_state
    ids = torch.cat([token_ids(3), torch.full((2, len(heard) // 2), 202), token_ids(4, seed=3)], 1)
    return model, {"input_ids": ids, "attention_mask": torch.ones_like(ids), **sound}


def qwen2_5_omni() -> Made:
    """Build a thinker of the second generation that hears."""
    eye = {"window_size": 28, "fullatt_block_indexes": [1]}
    return _omni("Qwen2_5Omni", eye, {"n_window": 10}, {})


def qwen3_omni_moe() -> Made:
    """Build a thinker of the third generation, with experts, that hears."""
    eye = {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    words = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
    ear = {"n_window": 50, "n_window_infer": 100, "downsample_hidden_size": 8}
    return _omni("Qwen3OmniMoe", eye, ear, words, frames=100)


def granite_speech5_ctc() -> Made:
    """Build speech in blocks, written down letter by letter."""
    ear = {**SMALL, "vocab_size": 64, "num_mel_bins": 16, "context_size": 8, "max_position_embeddings": 16}
    ear |= {"num_key_value_heads": 4, "conv_kernel_size": 3, "head_dim": 8}
    config = library.GraniteSpeech5CTCConfig(vocab_size=64, encoder_config=ear)
    return built("GraniteSpeech5ForCTC", config), {"input_features": noise(2, 40, 64)}


def nemo_speechlm() -> Made:
    """Build a decoder of text that knows who spoke."""
    ear = {**PLAIN, "num_mel_bins": 16, "max_position_embeddings": 64}
    config = library.Nemotron3_5TranscribeConfig(
        audio_config={"asr_config": ear, "diarization_config": {**PLAIN, "num_mel_bins": 16}},
        text_config={"model_type": "qwen3", **WORDS, "head_dim": 8},
        word_timestamp_config={**PLAIN, "vocab_size": 64, "blank_token_id": 63},
        audio_token_id=200,
    )
    return built("Nemotron3_5TranscribeModel", config), word_inputs()


def _by_meaning(kind: str) -> Made:
    """Build a codec that keeps the meaning of speech beside its sound."""
    meaning = {
        "model_type": "wav2vec2-bert", **PLAIN, "feature_projection_input_dim": 16,
        "position_embeddings_type": "relative_key", "conv_depthwise_kernel_size": 3,
    }  # fmt: skip
    config = getattr(library, f"{kind}Config")(
        **{**SMALL, "num_key_value_heads": 4},
        head_dim=8,
        encoder_hidden_size=4,
        downsampling_ratios=[2, 2, 2],
        semantic_model_config=meaning,
        quantization_dim=64,
        quantization_levels=[4, 4],
    )
    return built(f"{kind}Model", config), {
        "input_values": noise(2, 1, 160),
        "input_features": noise(2, 20, 16),
    }


def xcodec2() -> Made:
    """Build the second xcodec."""
    return _by_meaning("Xcodec2")


def neucodec() -> Made:
    """Build the same as the second xcodec, at another rate."""
    return _by_meaning("NeuCodec")


def xcodec() -> Made:
    """Build a codec of sound whose words come from HuBERT."""
    sound = {
        "model_type": "dac", "encoder_hidden_size": 8, "downsampling_ratios": [8, 5, 4, 2], "hidden_size": 16,
        "decoder_hidden_size": 32, "upsampling_ratios": [8, 5, 4, 2], "codebook_size": 32, "codebook_dim": 8,
        "n_codebooks": 2,
    }  # fmt: skip
    meaning = {
        "model_type": "hubert", **PLAIN, "conv_dim": (16, 16, 16), "conv_stride": (8, 8, 5),
        "conv_kernel": (8, 8, 5), "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
    }  # fmt: skip
    config = library.XcodecConfig(
        acoustic_model_config=sound, semantic_model_config=meaning, codebook_size=32, codebook_dim=48
    )
    return built("XcodecModel", config), {"input_values": noise(2, 1, 6400)}


SOUND: Given = {"hidden_size": 8, "num_filters": 4, "downsampling_ratios": [2, 2], "depths": [1, 1, 1]}


def vibevoice_acoustic_tokenizer() -> Made:
    """Build a codec of convolutions: no attention."""
    config = library.VibeVoiceAcousticTokenizerConfig(**SOUND)
    return built("VibeVoiceAcousticTokenizerModel", config), {"input_values": noise(2, 1, 320)}


def vibevoice() -> Made:
    """Build speech that is written by diffusion, with words only."""
    config = library.VibeVoiceConfig(
        audio_config=SOUND,
        semantic_model_config=SOUND,
        text_config={"model_type": "qwen2", **WORDS},
        diffusion_head_config={
            "num_hidden_layers": 1,
            "intermediate_size": 48,
            "frequency_embedding_size": 16,
        },
        pad_token_id=0,
        eos_token_id=2,
    )
    return built("VibeVoiceModel", config), word_inputs()


def vibevoice_asr() -> Made:
    """Build speech that is written down, with words only."""
    config = library.VibeVoiceAsrConfig(
        acoustic_tokenizer_encoder_config=SOUND,
        semantic_tokenizer_encoder_config=SOUND,
        text_config={"model_type": "qwen2", **WORDS},
        audio_token_id=200,
    )
    return built("VibeVoiceAsrModel", config), word_inputs()


def nemotron_h_omni() -> Made:
    """Build a picture in a decoder of state space layers and attention."""
    words = {name: value for name, value in WORDS.items() if name != "num_hidden_layers"} | {
        "model_type": "nemotron_h", "layers_block_type": ["mamba", "attention"], "head_dim": 8,
        "mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 8, "n_groups": 2,
        "use_mamba_kernels": False,
    }  # fmt: skip
    eye = {
        "model_type": "radio", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "mlp_ratio": 2.0, "patch_size": 8, "image_size": 32, "max_img_size": 64,
        "video_temporal_patch_size": 2,
    }  # fmt: skip
    config = library.NemotronH_Omni_Reasoning_V3_Config(
        text_config=words, vision_config=eye, audio_config=None, projector_hidden_size=32,
        vision_hidden_size=32, image_token_id=200, video_token_id=201, audio_token_id=202,
    )  # fmt: skip
    config.vision_config.torch_dtype = torch.float32
    return built("NemotronH_Omni_Reasoning_V3", config), {
        **placed(4, 200),
        "pixel_values": noise(32, 192),
        "image_grid_hw": torch.tensor([[4, 4], [4, 4]]),
    }


MADE: dict[str, Callable[[], Made]] = {
    "granite_speech5_ctc": granite_speech5_ctc,
    "nemo_speechlm": nemo_speechlm,
    "nemotron_h_omni": nemotron_h_omni,
    "neucodec": neucodec,
    "qwen2_5_omni": qwen2_5_omni,
    "qwen3_omni_moe": qwen3_omni_moe,
    "vibevoice": vibevoice,
    "vibevoice_acoustic_tokenizer": vibevoice_acoustic_tokenizer,
    "vibevoice_asr": vibevoice_asr,
    "xcodec": xcodec,
    "xcodec2": xcodec2,
}
