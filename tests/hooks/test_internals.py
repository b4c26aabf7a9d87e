"""Blocks taken apart by their tensors: what is found, what is verified, what is refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close


class Block(nn.Module):
    """A hand-written block with every choice that the finder must tell apart."""

    def __init__(
        self, width=12, heads=3, *, order="pre", scale=None, between=None, parallel=False, in_place=False
    ):
        super().__init__()
        self.heads, self.order, self.between, self.parallel = heads, order, between, parallel
        self.in_place = in_place
        self.norm_a, self.norm_b = nn.LayerNorm(width, eps=1e-3), nn.LayerNorm(width, eps=1e-4)
        self.fused, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 20), nn.Linear(20, width)
        self.scale = None if scale is None else nn.Parameter(torch.full((width,), scale))

    def attend(self, x):
        q, k, v = self.fused(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        if self.between == "gate":
            mixed = mixed * torch.sigmoid(x)
        made = self.out(mixed)
        made = made if self.scale is None else made * self.scale
        return torch.tanh(made) if self.between == "after" else made

    def feed(self, x):
        return self.narrow(functional.gelu(self.wide(x)))

    def forward(self, x):
        if self.parallel:
            return x + (self.attend(self.norm_a(x)) + self.feed(self.norm_a(x)))
        if self.order == "post":
            x = self.norm_a(x + self.attend(x))
            return self.norm_b(self.feed(x) + x)
        x = x + self.attend(self.norm_a(x))
        fed = self.feed(self.norm_b(x))
        return x.add_(fed) if self.in_place else x + fed


class Tower(nn.Module):
    def __init__(self, **choices):
        super().__init__()
        self.embedding = nn.Embedding(13, 12)
        self.blocks = nn.ModuleList(Block(**choices) for _ in range(3))
        self.head = nn.Linear(12, 5)

    def forward(self, input_ids):
        x = self.embedding(input_ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


@pytest.fixture
def tower():
    def make(**choices):
        torch.manual_seed(1)
        model = Tower(**choices).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        return model, {"input_ids": torch.randint(0, 13, (2, 7))}

    return make


@pytest.mark.parametrize(
    "choices", [{"order": "pre"}, {"order": "post"}, {"order": "pre", "scale": 0.7, "in_place": True}]
)
def test_every_part_of_a_hand_written_block_is_found_and_right(tower, choices):
    from attnlib import capture

    model, inputs = tower(**choices)
    seen = []
    for block in model.blocks:
        block.register_forward_hook(lambda m, args, out: seen.append((args[0].clone(), out.clone())))
    # the second sum works in place, so inputs are kept as they come
    record = capture(model, inputs, internals=True)
    for layer, block, (read, made) in zip(record.layers, model.blocks, seen, strict=True):
        found = layer.internals
        assert found.deviation < 1e-12
        assert found.is_post_norm == (choices["order"] == "post")
        scale = 1.0 if block.scale is None else block.scale[:, None]
        assert_close(found.output.weight, (block.out.weight * scale).detach())
        assert_close(found.value.weight, block.fused.weight[24:].detach())
        assert found.feed_forward.first.weight.shape == (20, 12)
        if found.is_post_norm:
            assert (found.norm.eps, found.second_norm.eps) == (1e-3, 1e-4)
            assert found.value_norm is None
            assert_close(found.whole_out(), made.detach())
            assert_close(found.residual, read.detach())
        else:
            assert (found.value_norm.eps, found.feed_forward.norm.eps) == (1e-3, 1e-4)
            assert_close(found.second_total, made.detach())
            attended = block.attend(block.norm_a(found.residual)).detach()
            assert_close(found.total, found.residual + attended)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"between": "gate"}, r"blocks\.2.*no linear map after it reads its 3 merged heads"),
        ({"between": "after"}, r"blocks\.2.*'tanh' stands between"),
        ({"parallel": True}, r"blocks\.2.*parallel branches"),
    ],
)
def test_a_block_of_another_build_is_refused_by_name(tower, choices, words):
    from attnlib import capture, explain
    from attnlib.errors import CaptureError

    model, inputs = tower(**choices)
    record = capture(model, inputs, internals=True)
    with pytest.raises(CaptureError, match=words):
        explain(record, "globenc", query=0)


def test_heads_left_out_at_the_capture_are_refused(tower):
    from attnlib import capture, explain
    from attnlib.errors import CaptureError

    model, inputs = tower()
    record = capture(model, inputs, heads=[0, 2], internals=True)
    with pytest.raises(CaptureError, match="only some of its heads"):
        explain(record, "alti", query=0)


def test_layers_left_out_at_the_capture_do_not_matter_to_the_others(tower):
    from attnlib import capture, explain

    model, inputs = tower()
    whole = capture(model, inputs, internals=True)
    part = capture(model, inputs, layers=[2], internals=True)
    assert_close(
        explain(part, "attention_norm", query=3).scores, explain(whole, "attention_norm", query=3).scores
    )


def state_of(model):
    hooks = [
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()
    ]
    flags = [m.training for m in model.modules()]
    grads = [(p.requires_grad, p.grad) for p in model.parameters()]
    attributes = [sorted(vars(m)) for m in model.modules()]
    return hooks, flags, grads, attributes, {k: v.clone() for k, v in model.state_dict().items()}


def test_the_model_is_given_back_after_every_method_that_needs_more_than_weights(tower):
    pytest.importorskip("captum")
    pytest.importorskip("pytorch_grad_cam")
    from attnlib import METHODS, capture, explain

    model, inputs = tower(order="post")
    model.embedding.weight.requires_grad_(False)
    before = state_of(model)
    names = [name for name, card in METHODS.items() if card.needs_internals]
    assert len(names) >= 9
    for name in names:
        record = capture(model, inputs, target=[3, 1], internals=True)
        asks_row = METHODS[name].family in ("decomposition", "relevance") and name not in (
            "decompx", "attnlrp", "cp_lrp",
        )  # fmt: skip
        scores = explain(record, name, query=0 if asks_row else None).scores
        assert torch.isfinite(scores).all(), name
        after = state_of(model)
        assert before[:4] == after[:4], name
        for key, value in before[4].items():
            assert torch.equal(value, after[4][key]), (name, key)


def test_the_model_is_given_back_when_its_forward_raises(tower):
    from attnlib import capture, explain

    model, inputs = tower(order="post")
    record = capture(model, inputs, target=1, internals=True)
    before = state_of(model)
    fail = {"now": True}

    def trouble(x):
        if fail["now"]:
            raise RuntimeError("in the middle")
        return functional.gelu(x)

    model.blocks[1].feed = trouble
    for name in ("attnlrp", "gradient_x_input", "grad_cam", "transformer_attribution"):
        with pytest.raises(RuntimeError, match="in the middle"):
            explain(record, name, **({"query": 0} if name == "transformer_attribution" else {}))
    del model.blocks[1].feed
    after = state_of(model)
    assert before[:4] == after[:4]
    model.blocks[0].feed = trouble
    with pytest.raises(RuntimeError, match="in the middle"):
        capture(model, inputs, internals=True)
    del model.blocks[0].feed
    assert before[:4] == state_of(model)[:4]
    assert not torch.overrides._get_current_function_mode_stack()


def test_a_model_that_changed_since_the_capture_is_refused(tower):
    pytest.importorskip("pytorch_grad_cam")
    from attnlib import capture, explain
    from attnlib.errors import CaptureError

    model, inputs = tower()
    record = capture(model, inputs, target=2, internals=True)
    with torch.no_grad():
        model.blocks[0].out.weight.mul_(3)
    with pytest.raises(CaptureError, match="did not compute again"):
        explain(record, "grad_cam")


def test_rerunning_under_inference_mode_is_refused(tower):
    from attnlib import NeedsError, capture

    model, inputs = tower()
    record = capture(model, inputs, target=2, internals=True)
    with torch.inference_mode(), pytest.raises(NeedsError, match="inference_mode"):
        record.on_rerun.score("text")


@pytest.mark.parametrize("norm_first", [False, True])
def test_blocks_of_torch_itself_are_taken_apart(norm_first):
    from attnlib import capture

    torch.manual_seed(2)

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(13, 12)
            layer = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True, norm_first=norm_first)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

        def forward(self, input_ids):
            return self.encoder(self.embedding(input_ids))

    model = Encoder().double().eval()
    record = capture(model, {"input_ids": torch.randint(0, 13, (2, 7))}, internals=True)
    for layer, real in zip(record.layers, model.encoder.layers, strict=True):
        found = layer.internals
        assert found.is_post_norm != norm_first
        assert_close(found.output.weight, real.self_attn.out_proj.weight.detach())
        assert found.deviation < 1e-10


def test_blocks_of_timm_are_taken_apart():
    timm = pytest.importorskip("timm")
    from attnlib import capture

    torch.manual_seed(4)
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=(48, 80),
        embed_dim=24,
        depth=2,
        num_heads=3,
        num_classes=5,
        init_values=0.1,
    ).eval()
    record = capture(model, torch.randn(2, 3, 48, 80), internals=True)
    for layer, block in zip(record.layers, model.blocks, strict=True):
        expected = block.attn.proj.weight * block.ls1.gamma[:, None]
        assert_close(layer.internals.output.weight, expected.detach())
        assert not layer.internals.is_post_norm
        assert layer.internals.feed_forward is not None
