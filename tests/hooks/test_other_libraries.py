"""Models of other libraries, as loaded: fused paths on, in other wrappings, refused where there are no weights."""

import warnings

import pytest
import torch
from torch import nn


def unfused(name, model, pixels):
    """Return the weights that a timm model without fused attention multiplies with the values."""
    import timm

    timm.layers.set_fused_attn(False)
    try:
        twin = timm.create_model(name, pretrained=False).eval()
    finally:
        timm.layers.set_fused_attn(True)
    twin.load_state_dict(model.state_dict())
    found = []
    for path, one in twin.named_modules():
        if path.endswith("attn_drop"):
            one.register_forward_pre_hook(lambda _, given: found.append(given[0]))
    with torch.no_grad():
        twin(pixels)
    return found


@pytest.mark.parametrize(
    ("name", "kinds", "grid"),
    [
        ("vit_tiny_patch16_224", {"self"}, (14, 14)),
        ("crossvit_tiny_240", {"self", "pool"}, None),
        ("cait_xxs24_224", {"self", "pool"}, (14, 14)),
        ("pvt_v2_b0", {"self"}, (7, 7)),
        ("test_vit", {"self"}, (10, 10)),
    ],
)
def test_models_of_timm_give_the_weights_of_their_unfused_twins(name, kinds, grid):
    timm = pytest.importorskip("timm")
    from attnlib import capture

    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).eval()
    pixels = torch.rand(2, *model.pretrained_cfg["input_size"])
    with torch.no_grad():
        plain = model(pixels)
    record = capture(model, pixels)
    assert torch.equal(record.output, plain)
    assert {one.kind for one in record.layers} == kinds
    assert record.streams == ("vision",)
    if grid is not None:
        assert record.layout.grid == grid
    truth = unfused(name, model, pixels)
    for one in truth:
        same = [layer for layer in record.layers if layer.weights().shape == one.shape]
        assert min((layer.weights() - one).abs().max() for layer in same) < 1e-5
    assert len(truth) in (len(record.layers), 0)


@pytest.mark.parametrize("name", ["xcit_nano_12_p16_224", "edgenext_xx_small", "mixer_s32_224"])
def test_models_of_timm_without_weights_over_tokens_are_refused_by_name(name):
    timm = pytest.importorskip("timm")
    from attnlib import capture
    from attnlib.errors import CaptureError

    model = timm.create_model(name, pretrained=False).eval()
    with pytest.raises(CaptureError, match=r"channels|no module|attention"):
        capture(model, torch.rand(1, 3, 224, 224))


def test_encoder_and_decoder_of_torch_on_their_fast_path():
    from attnlib import capture

    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 13, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2).eval()
    states, padding = torch.randn(2, 7, 16), torch.zeros(2, 7).bool()
    padding[1, 5:] = True
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = encoder(states, src_key_padding_mask=padding)
    record = capture(encoder, {"src": states, "src_key_padding_mask": padding})
    real = ~padding[:, : plain.shape[1]]
    torch.testing.assert_close(record.output[:, : plain.shape[1]][real], plain[real], rtol=1e-4, atol=1e-5)
    assert len(record.layers) == 2
    assert record.layers[0].weights()[1, :, :, 5:].abs().max() == 0
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(16, 4, 13, batch_first=True), 2).eval()
    both = capture(decoder, {"tgt": torch.randn(2, 5, 16), "memory": states})
    assert [one.kind for one in both.layers] == ["self", "cross", "self", "cross"]
    assert both.layers[1].weights().shape == (2, 4, 5, 7)


class Hand(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(12, 12) for _ in range(4))

    def forward(self, x):
        q, k, v = (one(x).unflatten(-1, (3, 4)).transpose(1, 2) for one in (self.q, self.k, self.v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return x + self.out(mixed.transpose(1, 2).flatten(2))


@pytest.fixture
def hand():
    torch.manual_seed(0)
    return nn.Sequential(Hand(), Hand()).eval(), torch.randn(2, 5, 12)


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_model_is_captured_as_it_runs(hand):
    from attnlib import capture

    if "qnnpack" not in torch.backends.quantized.supported_engines:
        pytest.skip("no quantised kernels here")
    model, states = hand
    small = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    with torch.no_grad():
        plain = small(states)
    record = capture(small, states)
    assert torch.equal(record.output, plain)
    exact = capture(model, states)
    for one, other in zip(record.layers, exact.layers, strict=True):
        torch.testing.assert_close(one.weights().sum(-1), torch.ones(2, 3, 5))
        assert 0 < (one.weights() - other.weights()).abs().max() < 0.05


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_is_captured_before_and_after_it_was_compiled(hand, backend):
    from attnlib import capture

    model, states = hand
    plain = capture(model, states)
    compiled = torch.compile(model, backend=backend)
    before = capture(compiled, states)
    with torch.no_grad():
        compiled(states)
    after = capture(compiled, states)
    for record in (before, after):
        torch.testing.assert_close(record.layers[1].weights(), plain.layers[1].weights())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["script", "trace", "inside"])
def test_scripted_and_traced_models_are_refused(hand, how):
    from attnlib import capture
    from attnlib.errors import InputError

    model, states = hand
    made = torch.jit.trace(model, states, check_trace=False)
    if how == "script":
        made = torch.jit.script(nn.Linear(12, 12))
    if how == "inside":
        made = nn.Sequential(nn.Identity(), made)
    with pytest.raises(InputError, match="script"):
        capture(made, states)


@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_a_model_spread_by_accelerate_is_captured_through_its_hooks(hand, tmp_path, where):
    accelerate = pytest.importorskip("accelerate")
    from attnlib import capture

    model, states = hand
    plain = capture(model, states)
    if where == "disk":
        accelerate.disk_offload(model, str(tmp_path), execution_device="cpu")
    else:
        accelerate.cpu_offload(model, execution_device="cpu")
    forwards = [one.forward for one in model.modules()]
    record = capture(model, states)
    for one, other in zip(record.layers, plain.layers, strict=True):
        torch.testing.assert_close(one.weights(), other.weights())
    assert [one.forward for one in model.modules()] == forwards


def test_open_clip_and_vit_pytorch_are_captured():
    open_clip = pytest.importorskip("open_clip")
    vit_pytorch = pytest.importorskip("vit_pytorch")
    from attnlib import capture

    torch.manual_seed(0)
    towers = {"embed_dim": 8, "vision_cfg": {"image_size": 40, "layers": 2, "width": 64, "patch_size": 8}}
    text = {"text_cfg": {"context_length": 7, "vocab_size": 47, "width": 24, "heads": 3, "layers": 2}}
    clip = open_clip.CLIP(**towers, **text).eval()
    ids = torch.tensor([[1, 5, 46, 0, 0, 0, 0], [1, 4, 5, 6, 46, 0, 0]])
    record = capture(clip, {"image": torch.rand(2, 3, 40, 40), "text": ids})
    assert sorted({(one.stream, one.kind) for one in record.layers}) == [("text", "self"), ("vision", "self")]
    assert record.select(stream="vision").layout.grid == (5, 5)
    assert record.select(stream="text").layers[0].weights().triu(1).abs().max() == 0
    model = vit_pytorch.ViT(
        image_size=40, patch_size=8, num_classes=11, dim=24, depth=2, heads=3, mlp_dim=13, dim_head=8
    ).eval()  # fmt: skip
    record = capture(model, torch.rand(2, 3, 40, 40))
    assert len(record.layers) == 2
    torch.testing.assert_close(record.layers[1].weights().sum(-1), torch.ones(2, 3, 26))


SMALL_TIMM = {
    "tnt_b_patch16_224": {"depth": 2, "embed_dim": 30, "inner_dim": 12, "num_heads_outer": 3},
    "tnt_s_legacy_patch16_224": {"depth": 2, "embed_dim": 30, "inner_dim": 12, "num_heads_outer": 3},
}


def captured(name):
    timm = pytest.importorskip("timm")
    from attnlib import capture

    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, **SMALL_TIMM.get(name, {})).eval()
    return capture(model, torch.rand(2, 3, 224, 224))


@pytest.mark.parametrize(
    ("name", "grid"),
    [("gcvit_xxtiny", 7), ("mvitv2_small_cls", 7), ("levit_128s", 4), ("levit_conv_128s", 4)],
)
def test_stages_are_self_attention_on_grids_that_cover_the_picture(name, grid):
    record = captured(name)
    assert {(one.stream, one.kind) for one in record.layers} == {("vision", "self")}
    assert record.layout.grid == (grid, grid)
    for layer in record.layers:
        for layout in (layer.query_layout, layer.key_layout):
            assert [n * side for n, side in zip(layout.grid, layout.patch_size, strict=True)] == [224, 224]
            assert layout.num_tokens in (layer.num_queries, layer.num_keys)


def test_queries_handed_out_to_all_windows_stand_for_the_tokens_of_each_window():
    record = captured("gcvit_xxtiny")
    layer = record.layers[1]  # 8 x 8 windows of 7 x 7 tokens, the same 49 queries in each
    assert (layer.num_queries, layer.num_keys) == (56 * 56, 56 * 56)
    raw = layer.window_weights()
    assert raw.shape == (2 * 64, 2, 49, 49)
    row, column, window = 7 * 3 + 2, 7 * 5 + 4, 8 * 3 + 5
    weights = layer.weights(queries=[row * 56 + column])[1, 0, 0].view(56, 56)
    torch.testing.assert_close(weights[21:28, 35:42].flatten(), raw[64 + window, 0, 2 * 7 + 4])
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("name", ["tnt_b_patch16_224", "tnt_s_legacy_patch16_224"])
def test_attention_inside_patches_is_a_stream_of_its_own(name):
    record = captured(name)
    assert set(record.streams) == {"vision", "vision inner"}
    outer, inner = record.select(stream="vision"), record.select(stream="vision inner")
    assert (outer.layout.grid, outer.layout.patch_size) == ((14, 14), (16, 16))
    assert outer.layout.prefix_tokens == ("class",)
    assert (inner.layout.grid, inner.layout.patch_size) == ((56, 56), (4, 4))
    assert [one.index for one in outer.layers] == [one.index for one in inner.layers] == [0, 1]
    weights = inner.layers[0].weights(queries=[9 * 56 + 6])[0, 0, 0].view(56, 56)
    assert float(weights[8:12, 4:8].sum()) == pytest.approx(1.0, abs=1e-5)


def test_outlook_attention_is_named_as_a_gap():
    from attnlib import explain
    from attnlib.errors import LayoutError, NeedsError

    record = captured("volo_d1_224")
    assert [(one.module, one.place) for one in record.gaps] == [
        ("OutlookAttention", float(i)) for i in range(4)
    ]
    with pytest.raises(NeedsError, match="OutlookAttention"):
        explain(record, "rollout")
    with pytest.raises(LayoutError, match="added up"):
        record.layers[0].weights()
    late = explain(record, "rollout", layers=[10, 11])  # the class token is added behind these
    assert late.query == "class"
    assert late.scores.shape[-1] == 197
    assert explain(record, "rollout", layers=[10, 11], query="mean").scores.shape[-1] == 196


def test_swin_of_torchvision_gives_the_weights_it_computes(monkeypatch):
    torchvision = pytest.importorskip("torchvision")
    from attnlib import capture

    torch.manual_seed(0)
    swin = torchvision.models.swin_transformer
    for kinds in ({}, {"block": swin.SwinTransformerBlockV2, "downsample_layer": swin.PatchMergingV2}):
        model = swin.SwinTransformer([4, 4], 24, [2, 2], [3, 3], [3, 3], num_classes=7, **kinds).eval()
        pixels, made, softmax = torch.rand(2, 3, 48, 48), [], nn.functional.softmax

        def seen(*args, made=made, softmax=softmax, **options):
            made.append(softmax(*args, **options))
            return made[-1]

        with torch.no_grad(), monkeypatch.context() as patch:
            patch.setattr(nn.functional, "softmax", seen)
            plain = model(pixels)
        record = capture(model, pixels)
        assert torch.equal(record.output, plain)
        assert record.layout.grid == (6, 6)
        for layer, one in zip(record.layers, made, strict=True):
            torch.testing.assert_close(layer.window_weights(), one.reshape(layer.window_weights().shape))


def test_an_encoder_is_read_where_its_decoder_looks():
    from transformers import GPT2Config, VisionEncoderDecoderConfig, VisionEncoderDecoderModel, ViTConfig

    from attnlib import capture

    torch.manual_seed(0)
    eyes = ViTConfig(
        hidden_size=24, num_attention_heads=3, num_hidden_layers=2, intermediate_size=13, image_size=40, patch_size=8
    )  # fmt: skip
    mouth = GPT2Config(
        vocab_size=31, n_embd=24, n_head=3, n_layer=2, n_positions=13, add_cross_attention=True, is_decoder=True
    )  # fmt: skip
    model = VisionEncoderDecoderModel(VisionEncoderDecoderConfig.from_encoder_decoder_configs(eyes, mouth))
    given = {"pixel_values": torch.rand(1, 3, 40, 40), "decoder_input_ids": torch.tensor([[1, 2, 3]])}
    record = capture(model.eval(), given)
    assert record.layouts["encoder"].readout == tuple(range(26))
    assert record.layouts["decoder"].readout == (2,)


@pytest.mark.parametrize(("same", "kind", "keys"), [(False, "cross", 8), (True, "self", 6)])
def test_a_key_of_zeros_that_torch_adds_does_not_turn_cross_attention_into_self_attention(same, kind, keys):
    from attnlib import capturing

    torch.manual_seed(0)
    module = nn.MultiheadAttention(12, 3, batch_first=True, add_zero_attn=True).eval()
    model = nn.ModuleDict({"attention": module})
    asks = torch.randn(2, 5, 12)
    answers = asks if same else torch.randn(2, 7, 12)
    with torch.no_grad(), capturing(model) as record:
        module(asks, answers, answers)
    expected = module(asks, answers, answers, average_attn_weights=False)[1]
    (layer,) = record.layers
    assert (layer.kind, layer.num_keys) == (kind, keys)
    torch.testing.assert_close(layer.weights(), expected.detach(), rtol=1e-5, atol=1e-6)


class _OverlappingWindows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.project = nn.Embedding(31, 12), nn.Linear(12, 36)

    def forward(self, input_ids):
        windows = self.embedding(input_ids).unfold(1, 4, 2).mT.flatten(0, 1).cumsum(1)
        query, key, value = self.project(windows)[:, None].chunk(3, -1)
        return nn.functional.scaled_dot_product_attention(query, key, value).mean(2)


def test_weights_inside_windows_only_have_no_layout_of_the_size_of_a_window():
    from attnlib import capturing
    from attnlib.errors import LayoutError

    torch.manual_seed(0)
    model = _OverlappingWindows().eval()
    with torch.no_grad(), capturing(model) as record:
        model(torch.randint(0, 31, (2, 10)))
    (layer,) = record.layers
    assert layer.window_weights().shape == (8, 1, 4, 4)
    assert layer.key_layout is None
    assert record.layouts == {}
    with pytest.raises(LayoutError, match=r"window_weights\(\) gives them raw"):
        _ = record.layout
