"""The streamed product equals the plain one, also where the exponent leaves the range of floats."""

import pytest
import torch


def layer_of(scale, dtype, *, batch=2, heads=3, tokens=67, dim=5, mask=None):
    from attnlib.record import LayerAttention, ProjectedAttention

    torch.manual_seed(7)
    query, key, value = (torch.randn(batch, heads, tokens, dim, dtype=dtype) for _ in range(3))
    slope = torch.randn(batch, heads, tokens, dim, dtype=dtype)
    source = ProjectedAttention(query, key, value, mask, False, scale, slope)
    return LayerAttention("layer", 0, "self", source)


@pytest.mark.parametrize("scale", [0.4, 30.0, 3000.0])
@pytest.mark.parametrize(("starts", "tokens"), [(1, 67), (3, 67), (2, 301)])
def test_streamed_vectors_equal_vectors_times_the_fused_matrix(scale, starts, tokens):
    from attnlib.methods.streaming import carry

    layer = layer_of(scale, torch.float64, tokens=tokens)
    vector = torch.rand(2, starts, tokens, dtype=torch.float64)
    vector[1, :, 5:40] = 0
    weights = layer.weights()
    torch.testing.assert_close(carry(layer, vector), vector @ weights.mean(1), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        carry(layer, vector, heads=[2, 0]), vector @ weights[:, [0, 2]].mean(1), rtol=1e-10, atol=1e-12
    )
    weighted = (weights * layer.gradients()).clamp(min=0).mean(1)
    torch.testing.assert_close(
        carry(layer, vector, positive_gradient=True), vector @ weighted, rtol=1e-10, atol=1e-11
    )


def test_float32_is_streamed_without_overflow():
    from attnlib.methods.streaming import carry

    for scale in (1.0, 500.0):
        layer = layer_of(scale, torch.float32)
        vector = torch.rand(2, 1, 67)
        got = carry(layer, vector)
        assert got.isfinite().all()
        torch.testing.assert_close(got, vector @ layer.weights().mean(1), rtol=1e-4, atol=1e-6)


def test_masked_layers_and_many_vectors_are_left_to_the_blocks():
    from attnlib.methods.streaming import carry

    mask = torch.ones(2, 1, 1, 67, dtype=torch.bool)
    assert carry(layer_of(1.0, torch.float32, mask=mask), torch.rand(2, 1, 67)) is None
    assert carry(layer_of(1.0, torch.float32), torch.rand(2, 67, 67)) is None


def test_queries_and_keys_of_different_number_are_streamed():
    from attnlib.methods.streaming import carry
    from attnlib.record import LayerAttention, ProjectedAttention

    torch.manual_seed(3)
    query, key, value = torch.randn(2, 3, 131, 5), torch.randn(2, 3, 17, 5), torch.randn(2, 3, 17, 7)
    layer = LayerAttention("layer", 0, "cross", ProjectedAttention(query, key, value, None, False, 0.4, None))
    vector = torch.rand(2, 1, 131)
    got = carry(layer, vector)
    torch.testing.assert_close(got, vector @ layer.weights().mean(1), rtol=1e-5, atol=1e-7)
