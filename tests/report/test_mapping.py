"""What a report shows if nothing is chosen."""

from dataclasses import replace

import pytest


@pytest.mark.parametrize(
    ("model", "method", "start_layer"),
    [("scenes-vit", "gradient_rollout", 0), ("dinov2-small-saliency", "rollout", 6)],
)
def test_the_default_method_is_the_one_that_the_scoreboard_speaks_for(model, method, start_layer):
    pytest.importorskip("onnx", reason="needs the extra models")
    from attnlib.report import map_picture

    mapped = map_picture("sample:poster", model=model, size=None if model == "scenes-vit" else 224)
    assert mapped.relevance.method == method
    assert mapped.relevance.options["start_layer"] == start_layer


def test_a_model_whose_labels_are_for_pixels_gets_a_method_without_a_target(tmp_path):
    from transformers import ViTImageProcessor, ViTModel

    from attnlib import load_model
    from attnlib.report import map_picture

    loaded = load_model("scenes-vit")
    config = loaded.model.config
    ViTModel(config).eval().save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 96, "width": 96}).save_pretrained(tmp_path)
    headless = replace(load_model(str(tmp_path)), labels=("sky", "grass"))
    assert map_picture("sample:poster", model=headless).relevance.method == "rollout"


@pytest.fixture
def swin(tmp_path):
    """A tiny Swin: its second stage works on a coarser grid with more heads."""
    import torch
    from transformers import SwinConfig, SwinForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    config = SwinConfig(
        image_size=64,
        patch_size=4,
        embed_dim=12,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
        num_labels=5,
    )
    SwinForImageClassification(config).eval().save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    return str(tmp_path)


def test_every_panel_of_a_report_stands_or_says_why_not_where_stages_merge_patches(swin):
    from attnlib.report import layers_panel, map_panel, map_picture, profile_panel, viewer_panel
    from attnlib.report.panels import Still, Told
    from attnlib.widgets import Viewer

    mapped = map_picture("sample:poster", model=swin)
    assert mapped.relevance.layout.grid == (16, 16)
    assert isinstance(map_panel(mapped), Still)
    assert isinstance(layers_panel(mapped), Still)
    profile = profile_panel(mapped)
    assert isinstance(profile, Told)
    assert "no such charts" in profile.plain
    assert "256 tokens, the layout has 64" in profile.plain
    assert isinstance(viewer_panel(mapped, budget_mb=0.1), Viewer)


def test_a_model_whose_layers_cannot_be_multiplied_is_shown_by_its_last_layer_and_says_so(tmp_path):
    import torch
    from transformers import SegformerConfig, SegformerForImageClassification, ViTImageProcessor

    from attnlib.errors import InputError
    from attnlib.report import map_picture

    torch.manual_seed(0)
    config = SegformerConfig(
        hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 2], num_labels=5
    )
    SegformerForImageClassification(config).eval().save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    mapped = map_picture("sample:poster", model=str(tmp_path))
    assert mapped.relevance.method == "raw"
    assert "gradient_rollout does not work for this model" in mapped.relevance.notes[0]
    for asked in ({"method": "gradient_rollout"}, {"start_layer": 0}):
        with pytest.raises(InputError, match="name layers of one size"):
            map_picture("sample:poster", model=str(tmp_path), **asked)


def test_a_model_that_writes_is_mapped_by_its_encoder():
    from attnlib.report import map_picture

    mapped = map_picture("sample:poster", model="scenes-captioner")
    assert (mapped.record.streams, mapped.relevance.method) == (("encoder",), "rollout")
    assert mapped.bands.labels.shape == (1, 12, 12)
    assert "next token" in mapped.said.sentences[0]
