"""Sources compute any part of the weights; windows and steps stand where they belong."""

import pytest
import torch
from torch.nn import functional


@pytest.mark.parametrize("kv_heads", [1, 3, 6])
@pytest.mark.parametrize("masked", ["no", "boolean", "additive", "causal"])
def test_projected_attention_equals_the_fused_kernel(kv_heads, masked):
    from attnlib.record import ProjectedAttention

    torch.manual_seed(0)
    query, key, value = (
        torch.randn(2, 6, 5, 4),
        torch.randn(2, kv_heads, 7, 4),
        torch.randn(2, kv_heads, 7, 3),
    )
    allowed = torch.rand(2, 1, 5, 7) > 0.3
    allowed[..., 0] = True
    mask = {"boolean": allowed, "additive": torch.where(allowed, 0.1, -torch.inf)}.get(masked)
    source = ProjectedAttention(query, key, value, mask, masked == "causal", 0.4)
    repeated = [one.repeat_interleave(6 // kv_heads, 1) for one in (key, value)]
    wanted = functional.scaled_dot_product_attention(
        query, *repeated, attn_mask=mask, is_causal=masked == "causal", scale=0.4
    )
    got = source.weights(slice(None), slice(None)) @ source.values(slice(None))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)
    some = source.weights([4, 1], [3, 0])
    torch.testing.assert_close(some, source.weights(slice(None), slice(None))[:, [4, 1]][:, :, [3, 0]])


def test_gradients_equal_autograd_through_the_matrix():
    from attnlib.record import ProjectedAttention

    torch.manual_seed(0)
    query, key, value = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 4)
    source = ProjectedAttention(query, key, value, scale=0.5)
    weights = source.weights(slice(None), slice(None)).requires_grad_()
    output = weights @ value
    given = torch.randn_like(output)
    (wanted,) = torch.autograd.grad((output * given).sum(), weights)
    source.output_gradient = given
    torch.testing.assert_close(source.gradients(slice(None), slice(None)), wanted)
    torch.testing.assert_close(source.gradients([2], [1, 4]), wanted[:, [2]][:, :, [1, 4]])


def test_windows_are_placed_and_padding_is_left_out():
    from attnlib.record import GivenAttention, PlacedAttention
    from attnlib.record.placed import Piece

    torch.manual_seed(0)
    inside = torch.rand(2, 3, 2, 2).softmax(-1)
    places = torch.tensor([[2, 0], [1, -1]])  # one item of three tokens, the last window reaches into padding
    source = PlacedAttention((Piece(GivenAttention(inside), torch.tensor([0, 0]), places, places),), 1, 3, 3)
    weights = source.weights(slice(None), slice(None))
    assert weights.shape == (1, 3, 3, 3)
    torch.testing.assert_close(weights[0, :, 2, 0], inside[0, :, 0, 1])
    torch.testing.assert_close(
        weights[0, :, 1], torch.stack([torch.zeros(3), inside[1, :, 0, 0], torch.zeros(3)], 1)
    )
    torch.testing.assert_close(source.weights([1], [2, 0]), weights[:, [1]][:, :, [2, 0]])


def test_generation_keeps_steps_apart_and_joins_them(reference):
    import transformers

    from attnlib import capturing
    from attnlib.record.steps import SteppedAttention

    model = transformers.AutoModelForCausalLM.from_pretrained(reference.model_dir("llama")).eval()
    prompt = torch.randint(5, 50, (2, 5), generator=torch.Generator().manual_seed(1))
    with capturing(model) as record:
        text = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=4,
            min_new_tokens=4,
            do_sample=False,
        )
    assert [(one.index, one.step, one.num_queries, one.num_keys) for one in record.layers[3:5]] == [
        (0, 1, 1, 6),
        (1, 1, 1, 6),
    ]
    first = [one.source for one in record.layers if one.index == 0]
    assert all(isinstance(one, SteppedAttention) for one in first)
    assert len({id(one.store) for one in first}) == 1  # the growing cache is kept once
    with torch.no_grad(), capturing(model) as whole:
        model(text)
    for joined, one in zip(record.joined().layers, whole.layers, strict=True):
        rows = joined.num_queries
        assert joined.weights().triu(1).abs().max() == 0
        torch.testing.assert_close(joined.weights(), one.weights()[:, :, :rows, :rows], rtol=1e-4, atol=1e-6)
    assert len(record.select(layers=1).layers) == 4
    assert len(record.select(step=0).layers) == 3


def test_changing_weights_that_were_read_changes_nothing_that_is_kept():
    from attnlib import AttentionRecord

    torch.manual_seed(0)
    own = torch.rand(1, 2, 5, 5).softmax(-1)
    before, slopes = own.clone(), torch.randn(1, 2, 5, 5)
    layer = AttentionRecord.from_weights([own], gradients=[slopes]).layers[0]
    for read in (layer.weights, layer.gradients):
        first = read()
        kept = first.clone()
        first[..., 0] = 0
        read(heads=1, queries=slice(2, 4)).mul_(7)
        torch.testing.assert_close(read(), kept, rtol=0, atol=0)
    torch.testing.assert_close(own, before, rtol=0, atol=0)
