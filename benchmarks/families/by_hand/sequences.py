"""Models of texts, series and sounds, with state space layers or latent parts."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers as library

from by_hand.parts import (
    PLAIN,
    PLAIN_WORDS,
    SMALL,
    WORDS,
    Given,
    Made,
    built,
    noise,
    token_ids,
    word_inputs,
)

MAMBA: Given = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_expand": 2}


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
    return built("ZambaModel", config), word_inputs()


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
    return built("Zamba2Model", config), word_inputs()


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
    return built("NemotronHModel", config), word_inputs()


def granitemoehybrid() -> Made:
    """Build state space layers and attention without positions."""
    config = library.GraniteMoeHybridConfig(
        **WORDS, **MAMBA, layer_types=["mamba", "attention"], num_local_experts=4, attention_multiplier=0.3
    )
    return built("GraniteMoeHybridModel", config), word_inputs()


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
    return built("Lfm2MoeModel", config), word_inputs()


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
    model = built("SpeechT5ForSpeechToText", config)
    return model, {"input_values": noise(2, 3000), "decoder_input_ids": token_ids(7)}


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
    return built("Gemma3nTextModel", config), word_inputs()


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
    return built("MusicgenForConditionalGeneration", config), {**word_inputs(), "decoder_input_ids": codes}


def xmod() -> Made:
    """Build adapters of one language."""
    config = library.XmodConfig(**PLAIN_WORDS, languages=["en_XX"], default_language="en_XX")
    return built("XmodModel", config), word_inputs()


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
    return built("xLSTMModel", config), {"input_ids": token_ids(64)}


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
    return built("TimesFmModel", config), {
        "past_values": noise(2, 32),
        "past_values_padding": torch.zeros(2, 32, dtype=torch.long),
        "freq": torch.zeros(2, 1, dtype=torch.long),
    }


def bark() -> Made:
    """Build the part of bark that turns text into meaning; the others are made alike."""
    config = library.BarkSemanticConfig(
        block_size=64, input_vocab_size=256, output_vocab_size=256, num_layers=2, num_heads=4, hidden_size=32
    )
    return built("BarkSemanticModel", config), {"input_ids": token_ids()}


def rag() -> Made:
    """Build answers from documents that were found before."""
    asked = library.DPRConfig(**PLAIN_WORDS, max_position_embeddings=32)
    sizes = {f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in (
        ("layers", 2), ("attention_heads", 4), ("ffn_dim", 48),
    )}  # fmt: skip
    answered = library.BartConfig(vocab_size=256, d_model=32, max_position_embeddings=32, **sizes)
    config = library.RagConfig.from_question_encoder_generator_configs(asked, answered, n_docs=2)
    return built("RagTokenForGeneration", config), {
        "input_ids": token_ids(),
        "context_input_ids": torch.cat([token_ids(9), token_ids(9, seed=3)]),
        "context_attention_mask": torch.ones(4, 9, dtype=torch.long),
        "doc_scores": noise(2, 2),
        "decoder_input_ids": token_ids(5),
    }


def _codec(kind: str, **more: object) -> Made:
    config = library.AutoConfig.for_model(
        kind, **SMALL, num_filters=8, head_dim=8, upsample_groups=32, **more
    )
    torch.manual_seed(0)
    return library.AutoModel.from_config(config).eval(), {"input_values": noise(2, 1, 8000)}


def mimi() -> Made:
    """Build a codec of sound with transformers on both sides of its codes."""
    return _codec(
        "mimi", codebook_size=32, codebook_dim=16, num_quantizers=4, vector_quantization_hidden_dimension=16
    )


def pocket_tts_audio_tokenizer() -> Made:
    """Build a codec of sound without codes."""
    return _codec("pocket_tts_audio_tokenizer")


def moonshine_streaming() -> Made:
    """Build speech that is heard piece by piece."""
    ear = {**PLAIN, "num_key_value_heads": 4, "sliding_windows": [[16, 4], [16, 0]]}
    config = library.MoonshineStreamingConfig(
        vocab_size=256, **PLAIN, num_key_value_heads=4, encoder_config=ear
    )
    return built("MoonshineStreamingModel", config), {
        "input_values": noise(2, 8000),
        "decoder_input_ids": token_ids(5),
    }


def musicgen_melody() -> Made:
    """Build several books of sound that follow given states."""
    config = library.MusicgenMelodyDecoderConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=48,
        max_position_embeddings=64, num_codebooks=2, audio_channels=1, pad_token_id=64, bos_token_id=64,
    )  # fmt: skip
    return built("MusicgenMelodyForCausalLM", config), {
        "input_ids": token_ids(9).remainder(60).repeat(2, 1),
        "encoder_hidden_states": noise(2, 5, 32),
        "encoder_attention_mask": torch.ones(2, 5),
    }


def nemotron() -> Made:
    """Build a decoder whose heads have a size of their own."""
    config = library.NemotronConfig(**WORDS, max_position_embeddings=64, head_dim=8)
    return built("NemotronModel", config), word_inputs()


def dbrx() -> Made:
    """Build a decoder with experts."""
    experts = {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32}
    config = library.DbrxConfig(
        d_model=32, n_heads=4, n_layers=2, max_seq_len=64, vocab_size=256, ffn_config=experts,
        attn_config={"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 1e4}, pad_token_id=0,
    )  # fmt: skip
    return built("DbrxModel", config), word_inputs()


MADE: dict[str, Callable[[], Made]] = {
    "zamba": zamba,
    "zamba2": zamba2,
    "nemotron_h": nemotron_h,
    "granitemoehybrid": granitemoehybrid,
    "lfm2_moe": lfm2_moe,
    "speecht5": speecht5,
    "gemma3n": gemma3n_text,
    "musicgen": musicgen,
    "xmod": xmod,
    "xlstm": xlstm,
    "timesfm": timesfm,
    "bark": bark,
    "dbrx": dbrx,
    "mimi": mimi,
    "moonshine_streaming": moonshine_streaming,
    "musicgen_melody": musicgen_melody,
    "nemotron": nemotron,
    "pocket_tts_audio_tokenizer": pocket_tts_audio_tokenizer,
    "rag": rag,
}
