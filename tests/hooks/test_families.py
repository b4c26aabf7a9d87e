"""Families whose attention is not all there is: the attention is exact, and the rest has a name."""

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


def eager(model, inputs):
    model.set_attn_implementation("eager")
    with torch.no_grad():
        return [one for one in model(**inputs, output_attentions=True).attentions if one is not None]


def hybrid(library):
    """Three linear layers and two softmax layers, in this order: l s l s l."""
    kinds = ["linear_attention", "full_attention"]
    return build(
        library,
        "Qwen3NextModel",
        "Qwen3NextConfig",
        **{**TEXT, "num_hidden_layers": 5, "num_key_value_heads": 1, "head_dim": 8},
        layer_types=[*kinds, *kinds, kinds[0]],
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=3,
        num_experts_per_tok=2,
        moe_intermediate_size=12,
        shared_expert_intermediate_size=12,
    )


def test_softmax_layers_of_a_hybrid_are_exact_and_the_others_have_names(library):
    from attnlib import capture

    model, inputs = hybrid(library), {"input_ids": words()}
    record = capture(model, inputs)
    assert [one.name for one in record.layers] == ["layers.1.self_attn", "layers.3.self_attn"]
    assert [(one.name, one.place) for one in record.gaps] == [
        ("layers.0", -0.5),
        ("layers.2", 0.5),
        ("layers.4", 1.5),
    ]
    assert "layers.0 (Qwen3NextDecoderLayer)" in " ".join(record.provenance.notes)
    theirs = eager(model, inputs)
    assert len(theirs) == 2
    for layer, one in zip(record.layers, theirs, strict=True):
        torch.testing.assert_close(layer.weights(), one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["rollout", "flow"])
def test_methods_that_go_through_all_layers_refuse_a_hybrid_by_the_name_of_the_layer(library, method):
    from attnlib import capture, explain
    from attnlib.errors import NeedsError

    record = capture(hybrid(library), {"input_ids": words()})
    with pytest.raises(NeedsError, match=r"layers\.0 \(Qwen3NextDecoderLayer\).*and 2 more"):
        explain(record, method)
    with pytest.raises(NeedsError, match=r"layers\.2"):
        explain(record, method, layers=[0, 1])


def test_single_layers_of_a_hybrid_can_be_shown(library):
    from attnlib import capture, explain

    record = capture(hybrid(library), {"input_ids": words()})
    row = record.layers[0].weights(queries=6).mean(1)[:, 0]
    torch.testing.assert_close(explain(record, "raw", layers=0, query=6).scores, row)
    mixed = explain(record, "rollout", layers=[1], query=6).scores
    torch.testing.assert_close(mixed.sum(-1), torch.ones(2))


def test_a_mixer_beside_the_attention_of_a_layer_is_named(library):
    from attnlib import capture, explain
    from attnlib.errors import NeedsError

    options = {"num_key_value_heads": 3, "mamba_d_ssm": 48, "mamba_n_heads": 3, "mamba_d_head": 16}
    model = build(library, "FalconH1Model", "FalconH1Config", **TEXT, **options, mamba_d_state=5)
    record = capture(model, {"input_ids": words()})
    assert [(one.name, one.place) for one in record.gaps] == [("layers.0.mamba", 0), ("layers.1.mamba", 1)]
    with pytest.raises(NeedsError, match=r"layers\.1\.mamba"):
        explain(record, "rollout", layers=[1])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ConvBert", {**TEXT, "num_attention_heads": 4, "head_ratio": 2, "conv_kernel_size": 3}),
        ("DiffLlama", {**TEXT, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6}),
    ],
)
def test_calls_side_by_side_are_all_captured_and_never_multiplied(library, kind, options):
    from attnlib import capture, explain
    from attnlib.errors import NeedsError

    model = build(library, f"{kind}Model", f"{kind}Config", **options)
    record = capture(model, {"input_ids": words()})
    assert len(record.layers) == 4
    assert all("side by side" in one.notes[0] for one in record.layers)
    assert len(record.gaps) == 2
    with pytest.raises(NeedsError, match="side by side"):
        explain(record, "rollout")
    if kind == "ConvBert":
        for layer, one in zip(record.layers[1::2], eager(model, {"input_ids": words()}), strict=True):
            torch.testing.assert_close(layer.weights(), one, rtol=1e-4, atol=1e-6)


def test_experts_and_routing_are_no_gap(library):
    from attnlib import capture, explain

    options = {**TEXT, "intermediate_size": 32, "num_key_value_heads": 3}
    options |= {"num_local_experts": 3, "num_experts_per_tok": 2}
    record = capture(build(library, "MixtralModel", "MixtralConfig", **options), {"input_ids": words()})
    assert record.gaps == ()
    assert explain(record, "rollout").scores.shape == (2, 7)


def test_sound_is_audio_and_each_sound_an_item(library):
    from attnlib import capture

    options = {**SMALL, "conv_dim": (7, 5), "conv_stride": (5, 4), "conv_kernel": (10, 6)}
    options |= {"num_conv_pos_embeddings": 3, "num_conv_pos_embedding_groups": 1}
    model = build(library, "HubertModel", "HubertConfig", **options)
    inputs = {"input_values": torch.randn(2, 400, generator=torch.Generator().manual_seed(2))}
    record = capture(model, inputs)
    assert {(one.stream, one.kind) for one in record.layers} == {("audio", "self")}
    for layer, one in zip(record.layers, eager(model, inputs), strict=True):
        assert layer.weights().shape == one.shape
        torch.testing.assert_close(layer.weights(), one, rtol=1e-4, atol=1e-6)


def test_frames_of_a_film_are_tokens_of_one_item(library):
    from attnlib import capture

    options = {**SMALL, "image_size": 24, "patch_size": 8, "num_frames": 4, "tubelet_size": 2}
    model = build(library, "VideoMAEModel", "VideoMAEConfig", **options)
    inputs = {"pixel_values": torch.randn(2, 4, 3, 24, 24, generator=torch.Generator().manual_seed(2))}
    record = capture(model, inputs)
    for layer, one in zip(record.layers, eager(model, inputs), strict=True):
        assert one.shape == (2, 3, 18, 18)
        torch.testing.assert_close(layer.weights(), one, rtol=1e-4, atol=1e-6)
        assert layer.stream == "vision"


@pytest.mark.parametrize(
    ("kind", "options", "inputs", "stream"),
    [
        (
            "ImageGPT",
            {"n_embd": 24, "n_layer": 2, "n_head": 3, "vocab_size": 61, "n_positions": 32},
            {"input_ids": words()},
            "vision",
        ),
        (
            "AST",
            {**SMALL, "max_length": 24, "num_mel_bins": 16, "patch_size": 8},
            {"input_values": torch.zeros(2, 24, 16)},
            "audio",
        ),
        ("Bert", TEXT, {"input_ids": words()}, "text"),
    ],
)
def test_streams_say_what_goes_in(library, kind, options, inputs, stream):
    from attnlib import capture

    record = capture(build(library, f"{kind}Model", f"{kind}Config", **options), inputs)
    assert {one.stream for one in record.layers} == {stream}


class Softmaxed(nn.Module):
    """Attention by the library's function, or by a kernel of its own."""

    def __init__(self, own):
        super().__init__()
        self.inward, self.outward, self.own = nn.Linear(12, 36), nn.Linear(12, 12), own

    def forward(self, x):
        query, key, value = self.inward(x).view(*x.shape[:2], 3, 3, 4).permute(2, 0, 3, 1, 4)
        if self.own:
            with torch._C.DisableTorchFunction():
                mixed = functional.scaled_dot_product_attention(query, key, value)
        else:
            mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.outward(mixed.transpose(1, 2).flatten(2))


class Linearised(nn.Module):
    """Linear attention: keys and values are summed up first."""

    def __init__(self):
        super().__init__()
        self.inward, self.outward = nn.Linear(12, 36), nn.Linear(12, 12)

    def forward(self, x):
        query, key, value = self.inward(x).chunk(3, -1)
        return self.outward(query.sigmoid() @ (key.sigmoid().transpose(1, 2) @ value))


class Layer(nn.Module):
    """A layer with whatever mixes its tokens."""

    def __init__(self, mixer):
        super().__init__()
        self.attention = mixer

    def forward(self, x):
        return x + self.attention(x)


class Stack(nn.Module):
    """Layers one after the other."""

    def __init__(self, *mixers):
        super().__init__()
        self.layers = nn.ModuleList(Layer(one) for one in mixers)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def test_a_missed_call_of_a_class_that_was_seen_is_an_error():
    from attnlib import capture
    from attnlib.errors import CaptureError

    torch.manual_seed(0)
    model = Stack(Softmaxed(own=False), Softmaxed(own=True)).eval()
    with pytest.raises(CaptureError, match=r"layers\.1\.attention, a Softmaxed"):
        capture(model, torch.randn(2, 5, 12))


class Hidden(Softmaxed):
    """Attention by a kernel of its own, in a class of its own."""


def test_a_kernel_of_its_own_is_an_error_also_in_a_class_that_was_not_seen():
    from attnlib import capture
    from attnlib.errors import CaptureError

    torch.manual_seed(0)
    model = Stack(Softmaxed(own=False), Hidden(own=True)).eval()
    with pytest.raises(CaptureError, match=r"layers\.1\.attention, a Hidden"):
        capture(model, torch.randn(2, 5, 12))


def test_linear_attention_between_softmax_layers_is_a_gap_under_any_class_name():
    from attnlib import capture, explain
    from attnlib.errors import NeedsError

    torch.manual_seed(0)
    model = Stack(Softmaxed(own=False), Linearised(), Softmaxed(own=False)).eval()
    record = capture(model, torch.randn(2, 5, 12))
    assert [one.place for one in record.gaps] == [0.5]
    assert record.gaps[0].name.startswith("layers.1")
    with pytest.raises(NeedsError, match="multiplies states of tokens with each other"):
        explain(record, "rollout", query=0)


SWIN = {"model_type": "swin", "image_size": 32, "embed_dim": 8, "depths": [1, 1, 1], "num_heads": [1, 1, 2]}


def test_words_and_places_that_read_each_other_from_one_matrix_of_scores_are_both_seen(library):
    stages = {"window_size": 4, "out_features": ["stage1", "stage2", "stage3"]}
    width = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 5}
    width |= {"encoder_attention_heads": 4, "decoder_attention_heads": 2}
    from attnlib import capture

    config = library.GroundingDinoConfig(
        backbone_config={**SWIN, **stages}, text_config={"model_type": "bert", **TEXT}, **width
    )
    torch.manual_seed(0)
    model = library.GroundingDinoModel(config).eval()
    ids = words(7)
    pictures = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    record = capture(model, {"input_ids": ids, "pixel_values": pictures})
    both = [one for one in record.layers if one.name.endswith("fusion_layer.attn")]
    assert [one.kind for one in both] == ["cross", "cross"]
    assert both[0].source.shape[2:] == tuple(reversed(both[1].source.shape[2:]))
    assert both[1].num_queries == 7
    torch.testing.assert_close(both[1].weights().sum(-1), torch.ones_like(both[1].weights().sum(-1)))
    assert not any("channels" in note for note in record.provenance.notes)
    queries = [one for one in record.layers if one.stream == "decoder" and one.kind == "self"]
    assert [one.source.shape[2:] for one in queries] == [(5, 5)]  # chosen places ask as tokens of their own
    assert record.layouts["decoder"].num_tokens == 5


def test_points_are_no_picture_and_masks_are_decoded_in_a_stream_of_their_own(library):
    from attnlib import capture

    vision = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "image_size": 40}
    vision |= {"patch_size": 8, "output_channels": 16, "mlp_dim": 20, "window_size": 3, "num_pos_feats": 8}
    prompt = {"hidden_size": 16, "image_size": 40, "patch_size": 8, "mask_input_channels": 8}
    decoder = {"hidden_size": 16, "mlp_dim": 24, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    config = library.SamConfig(
        vision_config={**vision, "global_attn_indexes": [0]},
        prompt_encoder_config=prompt,
        mask_decoder_config=decoder,
    )
    torch.manual_seed(0)
    pictures = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(2))
    points = torch.tensor([[[[3.0, 5.0], [30.0, 7.0]]]] * 2)
    record = capture(library.SamModel(config).eval(), {"pixel_values": pictures, "input_points": points})
    assert {one.stream for one in record.layers} == {"vision", "decoder"}
    assert record.layouts["vision"].grid == (5, 5)
    assert record.layouts["decoder"].grid is None
    assert record.layouts["decoder"].num_tokens == next(
        one.num_queries for one in record.layers if one.stream == "decoder"
    )


class Depth(nn.Module):
    """Attention over the states that earlier layers gave to one token."""

    def __init__(self):
        super().__init__()
        self.query = nn.Parameter(torch.randn(12))

    def forward(self, states, earlier):
        stacked = torch.stack([*earlier, states], -2)
        asked = self.query.expand(*states.shape[:2], 1, -1)
        return functional.scaled_dot_product_attention(asked, stacked, stacked).squeeze(-2)


class ReadsBack(nn.Module):
    """Attention over tokens, twice, and over the earlier states of each token."""

    def __init__(self):
        super().__init__()
        self.first = nn.MultiheadAttention(12, 3, batch_first=True)
        self.depth = Depth()
        self.second = nn.MultiheadAttention(12, 3, batch_first=True)

    def forward(self, states):
        one = self.first(states, states, states)[0]
        two = self.depth(one, [states])
        return self.second(two, two, two)[0]


def test_attention_over_earlier_layers_is_no_attention_over_tokens():
    from attnlib import capture

    torch.manual_seed(0)
    record = capture(ReadsBack().eval(), torch.randn(2, 5, 12))
    assert [(one.name, one.kind) for one in record.layers] == [("first", "self"), ("second", "self")]
