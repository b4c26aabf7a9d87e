"""Integrated gradients, gradient x input and Grad-CAM against the reference values."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("captum")
pytest.importorskip("pytorch_grad_cam")


@pytest.fixture(scope="module")
def vit(captured):
    return captured("vit", "ViTForImageClassification")


@pytest.fixture(scope="module")
def bert(captured):
    return captured("bert", "BertForSequenceClassification")


def patches(pixels):
    """Sum [batch, colour, 32, 32] over patches of 8 x 8."""
    return torch.tensor(pixels).sum(dim=1).reshape(-1, 4, 8, 4, 8).sum(dim=(2, 4)).flatten(1)


def test_integrated_gradients_equal_captum_on_pixels_and_embeddings(vit, bert):
    from attnlib import explain

    record, _, values = vit
    steps = int(values["input"]["ig_steps"])
    got = explain(record, "integrated_gradients", steps=steps)
    assert_close(got.scores[:, 1:], patches(values["expected"]["integrated_gradients"]), rtol=0, atol=1e-10)
    assert float(got.scores[:, 0].abs().max()) == 0
    record, _, values = bert
    steps = int(values["input"]["ig_steps"])
    got = explain(record, "integrated_gradients", steps=steps).scores
    assert_close(got, torch.tensor(values["expected"]["integrated_gradients_tokens"]), rtol=0, atol=1e-11)


def test_the_trapezoid_rule_is_rescaled_and_its_variant_is_captums(vit):
    from attnlib import explain

    record, _, values = vit
    ask = {"steps": int(values["input"]["ig_steps"]), "baseline": 0.3, "rule": "trapezoid"}
    found = values["expected"]
    key = "integrated_gradients_trapezoid_baseline_0p3"
    # captum rounds the points of this rule to float32
    got = explain(record, "integrated_gradients", **ask).scores[:, 1:]
    assert_close(got, patches(found[f"{key}.as_published"]), rtol=0, atol=1e-6)
    got = explain(record, "integrated_gradients", variant="captum", **ask).scores[:, 1:]
    assert_close(got, patches(found[f"{key}.as_implemented"]), rtol=0, atol=1e-6)


def test_attributions_add_up_to_the_change_of_the_score(bert):
    from attnlib import explain

    record, _, _ = bert
    handle = record.on_rerun
    start = handle.start("text")
    with torch.no_grad():
        change = handle.score("text", start) - handle.score("text", torch.zeros_like(start))
    scores = explain(record, "integrated_gradients", steps=40).scores
    assert_close(scores.sum(dim=-1), change, rtol=0, atol=1e-4 * float(change.abs().max()))
    coarse = explain(record, "integrated_gradients", steps=2)
    if float((coarse.scores.sum(dim=-1) - change).abs().max() / change.abs().max()) > 0.5:
        assert any("take more steps" in note for note in coarse.notes)


def test_gradient_x_input_is_the_derivative_along_the_input(vit):
    """d f((1 + t) x) / d t at t = 0, by finite differences."""
    from attnlib import explain

    record, _, _ = vit
    handle = record.on_rerun
    start, step = handle.start("vision"), 1e-5
    with torch.no_grad():
        ahead, behind = handle.score("vision", start * (1 + step)), handle.score("vision", start * (1 - step))
    scores = explain(record, "gradient_x_input").scores.sum(dim=-1)
    assert_close(scores, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-8)


def test_gradient_x_input_of_one_patch_is_the_derivative_along_that_patch(vit):
    from attnlib import explain

    record, _, _ = vit
    handle = record.on_rerun
    start, step = handle.start("vision"), 1e-5
    part = torch.zeros_like(start)
    part[:, :, 8:16, 24:32] = start[:, :, 8:16, 24:32]
    with torch.no_grad():
        slope = (
            handle.score("vision", start + step * part) - handle.score("vision", start - step * part)
        ) / (2 * step)
    assert_close(explain(record, "gradient_x_input").heatmap()[:, 1, 3], slope, rtol=1e-6, atol=1e-9)


def test_grad_cam_equals_pytorch_grad_cam(vit):
    from attnlib import explain

    record, _, values = vit
    expected = values["expected"]
    raw = torch.tensor(expected["gradcam.last_norm1.raw"])
    got = explain(record, "grad_cam").heatmap()
    assert_close(got, raw[0].clamp(min=0), rtol=1e-10, atol=1e-14)
    two = torch.tensor(expected["gradcam.two_layers.raw"])
    got = explain(record, "grad_cam", layers=[2, 3]).heatmap()
    assert_close(got, two.clamp(min=0).mean(dim=0), rtol=1e-10, atol=1e-14)


def test_grad_cam_variant_resized_equals_the_published_map(vit):
    cv2 = pytest.importorskip("cv2")
    from attnlib import explain

    record, _, values = vit
    got = explain(record, "grad_cam", variant="pytorch-grad-cam").heatmap()
    resized = np.stack([cv2.resize(np.float32(one), (32, 32)) for one in got.numpy()])
    low, high = resized.min(axis=(1, 2), keepdims=True), resized.max(axis=(1, 2), keepdims=True)
    resized = (resized - low) / (high - low + 1e-7)  # stretched once more after resizing, as published
    assert_close(
        torch.tensor(resized), torch.tensor(values["expected"]["gradcam.last_norm1.map"]), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("method", ["integrated_gradients", "gradient_x_input", "grad_cam"])
def test_items_and_padding_do_not_touch_one_another(bert, method):
    from attnlib import capture, explain

    record, inputs, values = bert
    options = {"steps": 5} if method == "integrated_gradients" else {}
    together = explain(record, method, **options).scores
    for item, length in enumerate((11, 7, 4)):
        alone = {k: v[item : item + 1, :length] for k, v in inputs.items()}
        target = [int(values["input"]["target"][item])]
        one = capture(record.on_rerun.module, alone, target=target, internals=True)
        scores = explain(one, method, **options).scores
        factor = 1.0
        if method == "grad_cam" and not record.seen:
            factor = 11 / length  # without a mask in the record, padding thins the mean over the tokens
        assert_close(scores[0], together[item, :length] * factor, rtol=1e-8, atol=1e-12)


def test_a_query_is_refused_and_a_target_may_be_named_late(vit):
    from attnlib import capture, explain
    from attnlib.errors import InputError, NeedsError

    record, inputs, values = vit
    with pytest.raises(InputError, match="leave query out"):
        explain(record, "grad_cam", query=3)
    without = capture(record.on_rerun.module, inputs, internals=True)
    with pytest.raises(NeedsError, match="target"):
        explain(without, "integrated_gradients")
    late = explain(without, "gradient_x_input", target=values["input"]["target"].tolist()).scores
    assert_close(late, explain(record, "gradient_x_input").scores)


def test_patches_that_do_not_tile_the_pixels_are_refused(vit):
    from attnlib import TokenLayout, explain
    from attnlib.errors import LayoutError

    record, _, _ = vit
    wrong = record.with_layout(TokenLayout((4, 4), 16, 1, 0))
    with pytest.raises(LayoutError, match="do not tile"):
        explain(wrong, "gradient_x_input")


def test_a_border_narrower_than_a_patch_is_left_out(vit):
    from attnlib import explain

    record, _, _ = vit
    from attnlib.methods.model_input import per_token
    from attnlib.methods.request import Request

    wide = torch.ones(2, 3, 35, 39)
    scores = per_token(Request(record, method="test"), wide)
    assert scores[:, 1:].unique().tolist() == [3 * 64]
    assert explain(record, "gradient_x_input").heatmap().shape == (2, 4, 4)


@pytest.mark.parametrize(
    ("method", "package"), [("integrated_gradients", "captum.attr"), ("grad_cam", "pytorch_grad_cam")]
)
@pytest.mark.parametrize("lacks", ["itself", "matplotlib"])
def test_the_package_that_is_missing_is_the_one_that_is_named(vit, monkeypatch, method, package, lacks):
    import importlib

    from attnlib import explain
    from attnlib.errors import MissingPackageError

    missing = package.partition(".")[0] if lacks == "itself" else lacks
    real = importlib.import_module

    def broken(name, *rest):
        if name == package:
            raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
        return real(name, *rest)

    home = "integrated_gradients" if method == "integrated_gradients" else "grad_cam"
    monkeypatch.setattr(real(f"attnlib.methods.{home}"), "import_module", broken, raising=True)
    named = missing.replace("_", "-") if lacks == "itself" else missing
    with pytest.raises(MissingPackageError, match=rf"needs? {named}.*attnlib\[attribution\]"):
        explain(vit[0], method)
