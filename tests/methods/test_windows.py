"""Rollout through windows, shifts and merges: the sparse product equals a dense one."""

import pytest
import torch


def dense_merge(upper, lower):
    """[upper token, lower token]: equal shares of the patches that were merged."""
    matrix = torch.zeros(upper[0] * upper[1], lower[0] * lower[1], dtype=torch.float64)
    for row in range(lower[0]):
        for column in range(lower[1]):
            matrix[(row // 2) * upper[1] + column // 2, row * lower[1] + column] = 1.0
    return matrix / matrix.sum(-1, keepdim=True)


def dense_rollout(record, weight=0.5):
    product, grid = None, None
    for layer in record.layers:
        fused = layer.weights().double().mean(1)
        eye = torch.eye(fused.shape[-1], dtype=torch.float64)
        mixed = (1 - weight) * fused + weight * eye
        mixed = mixed / mixed.sum(-1, keepdim=True)
        here = layer.query_layout.grid
        if product is None:
            product = eye.expand_as(mixed)
        elif here != grid:
            product = dense_merge(here, grid) @ product
        product, grid = mixed @ product, here
    return product


@pytest.fixture(scope="module")
def swin():
    from transformers import SwinConfig, SwinForImageClassification

    from attnlib import capture

    torch.manual_seed(5)
    config = SwinConfig(
        image_size=56,
        patch_size=4,
        window_size=3,
        embed_dim=12,
        depths=[2, 2, 1],
        num_heads=[2, 3, 4],
        num_labels=5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(6)
        pixels = torch.randn(2, 3, 52, 40)
    return capture(SwinForImageClassification(config).eval(), {"pixel_values": pixels}, target=1)


def test_rollout_through_windows_equals_the_dense_product(swin):
    from attnlib import explain

    grids = [layer.query_layout.grid for layer in swin.layers]
    assert grids == [(13, 10), (13, 10), (7, 5), (7, 5), (4, 3)]
    whole = dense_rollout(swin)
    found = explain(swin, "rollout")
    assert found.layout.grid == (13, 10)
    torch.testing.assert_close(found.scores.double(), whole.mean(1), rtol=1e-4, atol=1e-7)
    patch = explain(swin, "rollout", query=(3, 1))
    torch.testing.assert_close(patch.scores.double(), whole[:, 10], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(patch.scores.sum(-1), torch.ones(2))
    for weight in (0.2, 0.0):  # without the skip connection, rows of padding have nothing to share out
        every = explain(swin, "rollout", query="all", residual_weight=weight).scores
        torch.testing.assert_close(every.double(), dense_rollout(swin, weight), rtol=1e-4, atol=1e-7)
    assert "merged" in " ".join(found.notes)


def test_no_matrix_over_all_tokens_is_formed_in_a_windowed_layer(swin, monkeypatch):
    from attnlib import explain
    from attnlib.record import LayerAttention

    asked = []
    plain = LayerAttention.weights

    def watched(self, *, heads=None, queries=None):
        found = plain(self, heads=heads, queries=queries)
        asked.append(found.numel())
        return found

    monkeypatch.setattr(LayerAttention, "weights", watched)
    explain(swin, "rollout")
    tokens = 13 * 10
    assert max(asked) < 2 * 2 * tokens * tokens / 4


def test_gradient_methods_go_through_windows_too(swin):
    from attnlib import explain

    product, grid = None, None
    for layer in swin.layers:
        cam = (layer.weights() * layer.gradients()).clamp(min=0).mean(1).double()
        here = layer.query_layout.grid
        eye = torch.eye(cam.shape[-1], dtype=torch.float64)
        if product is not None and here != grid:
            product = dense_merge(here, grid) @ product
        product = eye + cam if product is None else product + cam @ product
        grid = here
    found = explain(swin, "generic_relevance")
    torch.testing.assert_close(found.scores.double(), product.mean(1), rtol=1e-4, atol=1e-7)
    assert explain(swin, "legrad").layout.grid == (13, 10)
    assert explain(swin, "gradient_rollout").scores.shape == (2, 130)
    with pytest.raises(ValueError, match="different sizes"):
        explain(swin, "gradient_rollout", variant="vit-explain")


def test_layers_whose_tokens_do_not_belong_together_are_refused():
    from attnlib import AttentionRecord, TokenLayout, explain

    first = AttentionRecord.from_weights(
        [torch.rand(1, 2, 12, 12)], layout=TokenLayout((3, 4), 1, (), "patches")
    )
    other = AttentionRecord.from_weights(
        [torch.rand(1, 2, 10, 10)], layout=TokenLayout((2, 5), 1, (), "patches")
    )
    record = AttentionRecord((first.layers[0], other.layers[0]), {"tokens": other.layout})
    with pytest.raises(ValueError, match="does not merge"):
        explain(record, "rollout")
