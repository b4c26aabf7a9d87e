"""A class token that joins behind the patch layers (CaiT, VOLO): its row goes on through the patch layers."""

import pytest
import torch


@pytest.fixture(scope="module")
def cait():
    pytest.importorskip("timm")
    from timm.models.cait import Cait

    from attnlib import capture

    torch.manual_seed(3)
    model = Cait(
        img_size=(12, 20), patch_size=4, embed_dim=24, depth=3, num_heads=3, num_classes=5, depth_token_only=2
    ).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return capture(model, torch.rand(2, 3, 12, 20), target=[1, 4])


def dense(record, matrix):
    """The product over class token and patches together, whoever does not read stays: [batch, 16, 16]."""
    product = torch.eye(16).expand(2, 16, 16)
    for layer in record.layers:
        step = torch.eye(16).repeat(2, 1, 1)
        own, stay = matrix(layer)
        if layer.kind == "pool":
            step[:, :1] = own + stay * torch.eye(16)[:1]
        else:
            step[:, 1:, 1:] = own + stay * torch.eye(15)
        product = step @ product
    return product[:, 0]


def mixed(fused, share):
    total = (1 - share) * fused.sum(-1, keepdim=True) + share
    return (1 - share) * fused / total, share / total


@pytest.mark.parametrize(
    ("options", "fuse", "share"),
    [({}, "mean", 0.5), ({"head_fusion": "max"}, "amax", 0.5), ({"residual_weight": 0.3}, "mean", 0.3)],
)
def test_rollout_is_the_product_over_class_token_and_patches(cait, options, fuse, share):
    from attnlib import explain

    assert [layer.kind for layer in cait.layers] == ["self"] * 3 + ["pool"] * 2
    found = explain(cait, **options)
    want = dense(cait, lambda layer: mixed(getattr(layer.weights(), fuse)(dim=1), share))
    torch.testing.assert_close(found.scores, want, rtol=1e-5, atol=1e-7)
    assert found.query == "class"
    assert found.layout.prefix_tokens == ("class",)
    assert found.heatmap().shape == (2, 3, 5)
    for same in ("class", "readout", "[CLS]"):
        assert torch.equal(explain(cait, query=same, **options).scores, found.scores)


def test_what_stays_on_the_class_token_is_told_apart(cait):
    from attnlib import explain

    found = explain(cait)
    stays = [
        float(mixed(one.weights().mean(1), 0.5)[1][0, 0, 0]) for one in cait.layers if one.kind == "pool"
    ]
    assert float(found.identity[0, 0]) == pytest.approx(stays[0] * stays[1])
    assert not found.identity[:, 1:].any()


def test_gradient_methods_carry_the_row_on_as_well(cait):
    from attnlib import explain

    def positive(layer):
        return (layer.weights() * layer.gradients()).clamp(min=0).mean(dim=1), 1.0

    def mean_first(layer):
        return mixed((layer.weights() * layer.gradients()).mean(dim=1).clamp(min=0), 0.5)

    for name, matrix in (("generic_relevance", positive), ("gradient_rollout", mean_first)):
        torch.testing.assert_close(explain(cait, name).scores, dense(cait, matrix), rtol=1e-4, atol=1e-7)


def test_discarding_goes_through_and_a_matrix_that_is_not_square_has_no_columns_to_divide(cait):
    from attnlib import explain
    from attnlib.errors import InputError

    assert explain(cait, discard_ratio=0.5).scores.isfinite().all()
    for name in ("rollout", "gradient_rollout"):
        with pytest.raises(InputError, match="columns"):
            explain(cait, name, variant="vit-explain")


def test_single_layer_methods_show_the_class_tokens_own_row(cait):
    from attnlib import explain

    last = cait.layers[-1]
    torch.testing.assert_close(explain(cait, "raw").scores, last.weights().mean(dim=1)[:, 0])
    product = (last.weights() * last.gradients()).mean(dim=1)[:, 0]
    torch.testing.assert_close(explain(cait, "attention_gradient").scores, product)
    assert explain(cait, "attention_grad_cam").heatmap().shape == (2, 3, 5)
    assert explain(cait, "rollout", query=(1, 2)).scores.shape == (2, 15)


def test_what_cannot_carry_it_on_names_the_place_where_the_class_token_joins(cait):
    from attnlib import explain
    from attnlib.errors import InputError

    with pytest.raises(InputError, match=r"joins the patches in blocks_token_only.0.attn.*query='mean'"):
        explain(cait, "flow")
    assert explain(cait, "flow", query="mean", solver="bound").scores.shape == (2, 15)
