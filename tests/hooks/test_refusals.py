"""What users do with models that no one planned for: it works, or the refusal is attnlib's own and names the place."""

import pytest
import torch
from torch import nn
from torch.nn import functional

WIDTH, HEADS, TOKENS = 12, 3, 7


class Attention(nn.Module):
    """Attention whose inside a test chooses: a function of module, query, key and value."""

    def __init__(self, inside):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.drop = nn.Dropout(0.3)
        self.inside = inside

    def forward(self, x):
        def heads(projected):
            return projected.unflatten(-1, (HEADS, -1)).transpose(1, 2)

        return (
            self.inside(self, heads(self.q(x)), heads(self.k(x)), heads(self.v(x))).transpose(1, 2).flatten(2)
        )


class Net(nn.Module):
    def __init__(self, inside, depth=2):
        super().__init__()
        self.attentions = nn.ModuleList(Attention(inside) for _ in range(depth))
        self.head = nn.Linear(WIDTH, 5)
        self.raises = None

    def forward(self, x, beside=None):
        for attention in self.attentions:
            x = x + attention(x)
        if self.raises is not None:
            error, self.raises = self.raises, None
            raise error
        return self.head(x.mean(1))


def fused(_, q, k, v):
    return functional.scaled_dot_product_attention(q, k, v)


def eager(module, q, k, v):
    return module.drop((q @ k.transpose(-1, -2)).softmax(-1)) @ v


def frozen(_, q, k, v):
    with torch.no_grad():
        return fused(_, q, k, v)


def gated(_, q, k, v):
    return 0.25 * (q @ k.transpose(-1, -2)).softmax(-1) @ v


def shared_keys(_, q, k, v):
    return fused(_, q, k[:, :1], v[:, :1])


def shared_queries(_, q, k, v):
    return fused(_, q[:, :1], k, v)


def keys_overwritten(_, q, k, v):
    out = fused(_, q, k, v)
    k.zero_()
    return out


def one_query_overwritten(_, q, k, v):
    out = fused(_, q, k, v)
    q[:, :, 2] = 0.0
    return out


def ragged(_, q, k, v):
    pieces = [torch.nested.nested_tensor([t[0], t[0][:, :4]], layout=torch.strided) for t in (q, k, v)]
    return functional.scaled_dot_product_attention(*pieces).to_padded_tensor(0.0)


def build(inside, depth=2):
    torch.manual_seed(0)
    return Net(inside, depth).eval()


def states(seed=0):
    return torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_pass_that_was_left_by_an_error_leaves_nothing_in_the_record(error):
    from attnlib import capture, capturing

    model = build(fused)
    with capturing(model, gradients=True) as record:
        model.raises = error("stop")
        with pytest.raises(error):
            model(states(0))
        record.differentiate(model(states(1))[:, 0].sum())
    assert [one.index for one in record.layers] == [0, 1]
    alone = capture(model, states(1), target=0)
    for one, other in zip(record.layers, alone.layers, strict=True):
        assert torch.equal(one.weights(), other.weights())
        torch.testing.assert_close(one.gradients(), other.gradients(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("inside", [shared_keys, shared_queries])
def test_heads_that_share_keys_or_queries_are_told_apart(inside):
    from attnlib import capture

    layer = capture(build(inside), states()).layers[0]
    assert layer.num_heads == HEADS
    torch.testing.assert_close(layer.weights().sum(-1), torch.ones(2, HEADS, TOKENS))


def test_attention_without_batch_and_heads_is_one_item_with_one_head():
    from attnlib import capture

    class Bare(nn.Module):
        def forward(self, x):
            return functional.scaled_dot_product_attention(x, x, x)

    layer = capture(Bare(), states()[0]).layers[0]
    expected = (states()[0] @ states()[0].T / WIDTH**0.5).softmax(-1)
    torch.testing.assert_close(layer.weights()[0, 0], expected, rtol=1e-5, atol=1e-6)


def test_weights_that_are_changed_after_the_softmax_are_reported():
    from attnlib import capture

    layer = capture(build(gated), states()).layers[0]
    torch.testing.assert_close(layer.weights().sum(-1), torch.full((2, HEADS, TOKENS), 0.25))
    assert "rows sum to 0.25" in layer.notes[0]


@pytest.mark.parametrize(
    ("inside", "narrowed"),
    [(keys_overwritten, {}), (keys_overwritten, {"queries": [1]}), (one_query_overwritten, {})],
)
def test_projections_that_the_model_writes_over_are_refused(inside, narrowed):
    from attnlib import capture
    from attnlib.errors import CaptureError

    with pytest.raises(CaptureError, match="wrote over the queries, keys or values"):
        capture(build(inside), states(), **narrowed)


@pytest.mark.parametrize(
    ("inside", "narrowed"),
    [(keys_overwritten, {"heads": [2]}), (one_query_overwritten, {"queries": [2]})],
)
def test_projections_that_were_copied_may_be_written_over(inside, narrowed):
    from attnlib import capture

    layer = capture(build(inside, 1), states(), **narrowed).layers[0]
    truth = capture(build(fused, 1), states(), **narrowed).layers[0]
    torch.testing.assert_close(layer.weights(**narrowed), truth.weights(**narrowed), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("inside", [fused, eager])
def test_tensors_without_numbers_are_refused_by_the_name_of_the_module(inside):
    from attnlib import capture, capturing
    from attnlib.errors import CaptureError

    with pytest.raises(CaptureError, match=r"attentions\.0: what it computed could not be read"):
        capture(build(inside).to("meta"), states().to("meta"))
    model = build(eager)
    with pytest.raises(CaptureError, match=r"attentions\.0: what"), capturing(model):
        torch.func.vmap(model)(states()[:, None])
    assert not any(one._forward_hooks for one in model.modules())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_ragged_batches_are_refused_by_the_name_of_the_module():
    from attnlib import capture
    from attnlib.errors import CaptureError

    with pytest.raises(CaptureError, match=r"attentions\.0: what it computed could not be read"):
        capture(build(ragged), states())


def test_active_dropout_is_named_also_where_attention_is_written_by_hand():
    from attnlib import capture
    from attnlib.errors import CaptureError

    model = build(eager).train()
    with pytest.raises(CaptureError, match=r"attentions\.0 drops attention weights.*model\.eval"):
        capture(model, states())
    assert model.training


def test_a_part_without_gradients_is_named():
    from attnlib import capture
    from attnlib.errors import NeedsError

    with pytest.raises(NeedsError, match=r"attentions\.0 runs under torch\.no_grad"):
        capture(build(frozen), states(), target=1)


def test_a_model_made_under_inference_mode_has_weights_and_no_gradients():
    from attnlib import capture
    from attnlib.errors import NeedsError

    with torch.inference_mode():
        model = build(fused)
    torch.testing.assert_close(
        capture(model, states()).layers[0].weights(), capture(build(fused), states()).layers[0].weights()
    )
    with pytest.raises(NeedsError, match="inference_mode"):
        capture(model, states(), target=1)


def test_random_numbers_of_the_caller_are_left_alone(tiny):
    from attnlib import capture

    model = tiny("ViTForImageClassification", image_size=24, patch_size=8)
    pixels = torch.rand(1, 3, 24, 24)
    before = torch.get_rng_state()
    capture(model, pixels, target=1, internals=True)
    assert torch.equal(before, torch.get_rng_state())


def test_positional_arguments_may_be_anything_beside_a_tensor():
    from attnlib import capture

    assert len(capture(build(fused), (states(), None)).layers) == 2


@pytest.mark.parametrize("way", ["by name", "by place", "in a dictionary", "for each head"])
def test_padding_is_seen_however_the_mask_goes_in(way, tiny):
    from attnlib import capture

    class Wrapper(nn.Module):
        def __init__(self, body):
            super().__init__()
            self.body = body

        def forward(self, features):
            return self.body(**features)

    model = tiny("BertModel", vocab_size=61)
    ids = torch.randint(5, 60, (2, TOKENS), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    given = {
        "by name": (model, {"input_ids": ids, "attention_mask": mask}),
        "by place": (model, (ids, mask)),
        "in a dictionary": (Wrapper(model), ({"input_ids": ids, "attention_mask": mask},)),
        "for each head": (model, {"input_ids": ids, "attention_mask": mask[:, None, None].bool()}),
    }
    record = capture(*given[way])
    assert record.layers[0].stream == "text"
    assert torch.equal(record.seen["text"], mask.bool())
    assert not record.layers[0].weights()[0, :, :, :3].any()


@pytest.mark.filterwarnings("ignore")
def test_a_kernel_that_keeps_its_weights_is_named_with_the_way_out(tiny):
    from attnlib import capture
    from attnlib.errors import CaptureError

    model = tiny("BertModel", vocab_size=61, attn_implementation="flex_attention")
    ids = torch.randint(5, 60, (2, TOKENS), generator=torch.Generator().manual_seed(1))
    with pytest.raises(CaptureError, match=r"'flex_attention'.*set_attn_implementation\('sdpa'\)"):
        capture(model, {"input_ids": ids})
    model.set_attn_implementation("sdpa")
    assert len(capture(model, {"input_ids": ids}).layers) == 2


def padded(_, q, k, v):
    scores = q @ k.transpose(-1, -2)
    scores[:, :, 3] = -torch.inf
    return (scores.softmax(-1) @ v).nan_to_num(0.0)


def test_rows_that_see_nothing_are_zero_where_the_model_has_nan():
    from attnlib import capture, explain

    record = capture(build(padded), states())
    layer = record.layers[0]
    assert not layer.weights()[:, :, 3].any()
    torch.testing.assert_close(layer.weights(queries=[0, 6]).sum(-1), torch.ones(2, HEADS, 2))
    assert "rows are NaN in the model" in layer.notes[0]
    assert explain(record, "rollout").scores.isfinite().all()


@pytest.mark.parametrize("inside", [fused, eager])
def test_models_that_compute_nan_have_no_map(inside):
    from attnlib import capture
    from attnlib.errors import CaptureError

    with pytest.raises(CaptureError, match=r"attentions\.0: its attention is NaN in the model itself"):
        capture(build(inside), states() * torch.nan)


def test_an_empty_batch_is_refused():
    from attnlib import capture
    from attnlib.errors import CaptureError

    with pytest.raises(CaptureError, match="attention over nothing"):
        capture(build(fused), states()[:0])
