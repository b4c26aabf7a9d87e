"""One family per mechanism: the weights equal those the library computes itself, and add up."""

import pytest
import torch
from torch import nn
from torch.nn import functional

SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 31,
}
TEXT = {**SMALL, "vocab_size": 61, "max_position_embeddings": 64}
IMAGE = {**SMALL, "image_size": 40, "patch_size": 8}


@pytest.fixture(scope="module")
def library():
    """The transformers library, imported after the shape checker."""
    import transformers

    return transformers


def build(library, model, config, **options):
    torch.manual_seed(0)
    return getattr(library, model)(getattr(library, config)(**options)).eval()


def words(length=7, batch=2, top=60):
    return torch.randint(5, top, (batch, length), generator=torch.Generator().manual_seed(1))


def picture(height=40, width=40):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(2))


def eager(model, inputs, word="attentions"):
    model.set_attn_implementation("eager")
    with torch.no_grad():
        return [one for one in getattr(model(**inputs, output_attentions=True), word) if one is not None]


FAMILIES = {
    "fused": ("BertModel", "BertConfig", TEXT),
    "causal": (
        "GPT2Model",
        "GPT2Config",
        {"n_embd": 24, "n_layer": 2, "n_head": 3, "vocab_size": 61, "n_positions": 32},
    ),
    "grouped queries": (
        "LlamaModel",
        "LlamaConfig",
        {**TEXT, "num_attention_heads": 6, "num_key_value_heads": 2},
    ),
    "sliding window": (
        "MistralModel",
        "MistralConfig",
        {**TEXT, "num_key_value_heads": 3, "sliding_window": 3},
    ),
    "shared layers": ("AlbertModel", "AlbertConfig", {**TEXT, "embedding_size": 11}),
    "eager only": ("MPNetModel", "MPNetConfig", TEXT),
    "disentangled positions": (
        "DebertaV2Model",
        "DebertaV2Config",
        {**TEXT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 5},
    ),
    "einsum over other axes": (
        "XLNetModel",
        "XLNetConfig",
        {"d_model": 24, "n_layer": 2, "n_head": 3, "d_inner": 31, "vocab_size": 61},
    ),
    "soft cap": (
        "Gemma2Model",
        "Gemma2Config",
        {**TEXT, "num_key_value_heads": 3, "head_dim": 8, "attn_implementation": "eager"},
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_text_families_give_the_weights_that_the_library_computes(library, name):
    from attnlib import capture

    kind, config, options = FAMILIES[name]
    model = build(library, kind, config, **options)
    inputs = {"input_ids": words()}
    record = capture(model, inputs)
    theirs = eager(model, inputs)
    assert len(record.layers) == len(theirs) == 2
    for layer, one in zip(record.layers, theirs, strict=True):
        if name == "einsum over other axes" and one.shape != (2, 3, 7, 7):
            one = one.permute(2, 3, 0, 1) if one.shape[0] == 7 else one
        torch.testing.assert_close(layer.weights(), one, rtol=1e-4, atol=1e-6)
        assert (layer.kind, layer.stream) == ("self", "text")


def test_sinks_leave_rows_below_one_and_say_so(library):
    from attnlib import capture

    options = {**TEXT, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 4}
    options |= {"num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1}
    model = build(library, "GptOssModel", "GptOssConfig", **options)
    record = capture(model, {"input_ids": words()})
    sums = record.layers[0].weights().sum(-1)
    assert (sums < 0.999).all()
    assert "sink" in record.layers[0].notes[0]
    for layer, one in zip(record.layers, eager(model, {"input_ids": words()}), strict=True):
        torch.testing.assert_close(layer.weights(), one[..., :7], rtol=1e-4, atol=1e-6)


def test_encoder_and_decoder_are_streams_and_cross_attention_is_cross(library):
    from attnlib import capture

    options = {
        "d_model": 24,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 3,
        "decoder_attention_heads": 3,
        "encoder_ffn_dim": 31,
        "decoder_ffn_dim": 31,
        "vocab_size": 61,
    }
    model = build(library, "BartModel", "BartConfig", **options)
    inputs = {"input_ids": words(7), "decoder_input_ids": words(7)}  # same length: kinds come from the tokens
    record = capture(model, inputs)
    kinds = [(one.stream, one.kind, one.index) for one in record.layers]
    assert kinds == [
        ("encoder", "self", 0),
        ("encoder", "self", 1),
        ("decoder", "self", 0),
        ("decoder", "cross", 1),
        ("decoder", "self", 2),
        ("decoder", "cross", 3),
    ]
    cross = record.select(kind="cross")
    for layer, one in zip(cross.layers, eager(model, inputs, "cross_attentions"), strict=True):
        torch.testing.assert_close(layer.weights(), one, rtol=1e-4, atol=1e-6)
        assert layer.key_stream == "encoder"


def test_pooling_head_is_a_pool(library):
    from attnlib import capture

    record = capture(
        build(library, "SiglipVisionModel", "SiglipVisionConfig", **IMAGE), {"pixel_values": picture()}
    )
    assert [one.kind for one in record.layers] == ["self", "self", "pool"]
    assert record.layers[-1].weights().shape == (2, 3, 1, 25)
    assert record.layout.readout == "patches"


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_windows_stand_at_their_image_positions(library, implementation):
    from attnlib import capture

    options = {
        "image_size": 32,
        "patch_size": 2,
        "embed_dim": 8,
        "depths": [2, 2],
        "num_heads": [1, 2],
        "window_size": 4,
        "attn_implementation": implementation,
    }
    if implementation == "sdpa" and not library.SwinModel._supports_sdpa:
        pytest.skip("this version of transformers writes Swin's softmax by hand")
    model = build(library, "SwinModel", "SwinConfig", **options)
    record = capture(model, {"pixel_values": picture(32, 32)})
    assert [one.num_keys for one in record.layers] == [256, 256, 64, 64]
    plain, shifted = record.layers[:2]
    assert plain.window_weights().shape == (32, 1, 16, 16)
    weights = plain.weights()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 1, 256))
    block = torch.arange(256).view(16, 16)[4:8, 8:12].flatten()  # second row, third column of windows
    torch.testing.assert_close(weights[1][:, block][:, :, block], plain.window_weights()[16 + 4 + 2])
    corner = shifted.weights()[0, 0, 0].view(16, 16)  # a shifted window keeps the image's corner to itself
    assert corner[:2, :2].sum() > 0.99
    assert corner[2:].sum() + corner[:, 2:].sum() < 1e-6
    assert "16x16, 8x8" in str(record.layout)


def test_sliding_chunks_are_put_together(library):
    from attnlib import capture

    options = {**TEXT, "attention_window": [4, 4]}
    model = build(library, "LongformerModel", "LongformerConfig", **options)
    weights = capture(model, {"input_ids": words(16)}).layers[0].weights()
    with torch.no_grad():
        banded = model(input_ids=words(16), output_attentions=True).attentions[
            0
        ]  # [batch, head, query, offset]
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 16))
    for offset in range(5):
        inside = torch.arange(max(0, 2 - offset), min(16, 18 - offset))
        torch.testing.assert_close(weights[:, :, inside, inside + offset - 2], banded[:, :, inside, offset])


def test_shuffled_patches_are_put_back_in_order(library):
    from attnlib import capture

    model = build(library, "ViTMAEModel", "ViTMAEConfig", mask_ratio=0.6, **IMAGE)
    noise = torch.rand(2, 25, generator=torch.Generator().manual_seed(3))
    record = capture(model, {"pixel_values": picture(), "noise": noise})
    with torch.no_grad():
        mask = model(pixel_values=picture(), noise=noise).mask
    weights = record.layers[0].weights()
    assert weights.shape == (2, 3, 26, 26)
    got = weights[:, :, 0, 1:].sum(1) > 0
    assert torch.equal(got, mask == 0)
    assert torch.equal(record.seen["vision"][:, 1:], mask == 0)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_multihead_attention_equals_its_own_weights(need_weights, batch_first):
    from attnlib import capture

    torch.manual_seed(0)
    model = nn.MultiheadAttention(12, 3, batch_first=batch_first).eval()
    given = torch.randn(2, 5, 12)
    given = given if batch_first else given.transpose(0, 1)
    record = capture(model, {"query": given, "key": given, "value": given, "need_weights": need_weights})
    with torch.no_grad():
        _, theirs = model(given, given, given, average_attn_weights=False)
    torch.testing.assert_close(record.layers[0].weights(), theirs, rtol=1e-4, atol=1e-6)
    assert record.layers[0].kind == "self"


def test_transformer_encoder_with_padding_is_seen_and_its_output_unchanged():
    from attnlib import capture

    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 3, 17, batch_first=True), 2).eval()
    given = torch.randn(2, 5, 12)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    with torch.no_grad():
        plain = model(given, src_key_padding_mask=padding)
    record = capture(model, {"src": given, "src_key_padding_mask": padding})
    assert len(record.layers) == 2
    assert record.layers[0].weights()[1, :, :, 3:].abs().max() == 0
    torch.testing.assert_close(record.output[~padding], plain[~padding], rtol=1e-4, atol=1e-5)


class ByHand(nn.Module):
    """Attention written by hand, one way or another."""

    def __init__(self, way):
        super().__init__()
        torch.manual_seed(0)
        self.way, self.qkv = way, nn.Linear(12, 36)

    def forward(self, x):
        query, key, value = self.qkv(x).view(*x.shape[:2], 3, 3, 4).permute(2, 0, 3, 1, 4)
        if self.way == "fused":
            return functional.scaled_dot_product_attention(query, key, value, scale=0.3)
        weights = (query @ key.transpose(-1, -2) * 0.3).softmax(-1)
        if self.way == "turned":
            return (value.transpose(-1, -2) @ weights.transpose(-1, -2)).transpose(-1, -2)
        if self.way == "einsum":
            return torch.einsum("b h i j, b h j d -> b h i d", weights, value)
        if self.way == "folded":
            return torch.bmm(weights.flatten(0, 1), value.flatten(0, 1))
        if self.way == "channels":
            weights = (query.transpose(-1, -2) @ key).softmax(-1)
            return weights @ value.transpose(-1, -2)
        return weights @ value

    def expected(self, x):
        query, key, _ = self.qkv(x).view(*x.shape[:2], 3, 3, 4).permute(2, 0, 3, 1, 4)
        return (query @ key.transpose(-1, -2) * 0.3).softmax(-1)


@pytest.mark.parametrize("way", ["fused", "plain", "turned", "einsum", "folded"])
def test_attention_written_by_hand_is_found(way):
    from attnlib import capture

    model, given = ByHand(way), torch.randn(2, 5, 12)
    record = capture(model, given)
    with torch.no_grad():
        torch.testing.assert_close(record.layers[0].weights(), model.expected(given), rtol=1e-4, atol=1e-6)


def test_attention_over_channels_is_refused_by_name():
    from attnlib import capture
    from attnlib.errors import CaptureError

    holder = nn.Sequential()
    holder.add_module("mixer", ByHand("channels"))
    with pytest.raises(CaptureError, match=r"mixer.*channels"):
        capture(holder, torch.randn(2, 5, 12))


def test_approximations_are_refused_by_name(library):
    from attnlib import capture
    from attnlib.errors import CaptureError

    model = build(
        library,
        "NystromformerModel",
        "NystromformerConfig",
        **TEXT,
        segment_means_seq_len=12,
        num_landmarks=3,
    )
    with pytest.raises(CaptureError, match=r"attention\.self.*approximates"):
        capture(model, {"input_ids": words(12)})


def test_renamed_classes_change_nothing(library):
    from attnlib import capture

    model = build(library, "ViTModel", "ViTConfig", **IMAGE)
    before = capture(model, {"pixel_values": picture()})
    for number, module in enumerate(list(model.modules())):
        module.__class__ = type(f"Thing{number}", (type(module),), {})
    after = capture(model, {"pixel_values": picture()})
    assert [one.name for one in after.layers] == [one.name for one in before.layers]
    assert str(after.layout) == str(before.layout)
    torch.testing.assert_close(after.layers[1].weights(), before.layers[1].weights())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_models_give_float32_rows_that_sum_to_one(library, dtype):
    from attnlib import capture

    model = build(library, "BertModel", "BertConfig", **TEXT).to(dtype)
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    weights = capture(model, {"input_ids": words(), "attention_mask": mask}).layers[0].weights()
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 7))
    assert weights[1, :, :, 4:].abs().max() == 0


def test_fully_masked_rows_are_zero_and_reported():
    from attnlib import capture

    class Masked(ByHand):
        def forward(self, x):
            query, key, value = self.qkv(x).view(*x.shape[:2], 3, 3, 4).permute(2, 0, 3, 1, 4)
            allowed = torch.ones(5, 5, dtype=torch.bool)
            allowed[2] = False
            return functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)

    record = capture(Masked("fused"), torch.randn(2, 5, 12))
    weights = record.layers[0].weights()
    assert weights[:, :, 2].abs().max() == 0
    assert not weights.isnan().any()
    assert "fully masked" in record.provenance.notes[0]
