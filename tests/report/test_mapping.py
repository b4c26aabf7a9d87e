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
