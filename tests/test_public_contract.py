"""The public contract: names, argument order and meaning that other people's code relies on."""

import inspect

import numpy as np
import pytest
import torch

CONTRACT = {
    "load_model": ("name", ["device", "dtype", "revision"]),
    "capturing": ("model", ["layers", "heads", "kinds", "gradients", "max_memory"]),
    "capture": ("model inputs", ["target", "layers", "heads", "internals", "max_memory"]),
    "explain": ("record method", ["query", "layers"]),
    "band_map": ("relevance", ["scale", "cuts"]),
    "find_regions": ("picture", ["text", "faces", "boxes", "masks"]),
    "compare": ("what", []),
    "explore": ("", []),
    "interpret": ("relevance regions", []),
    "overlay": ("relevance picture", []),
    "run_report": ("notebook output parameters", []),
    "TokenLayout": ("grid patch_size prefix_tokens readout tokens spans", []),
    "Relevance": ("scores layout method", []),
}


@pytest.mark.parametrize("name", CONTRACT)
def test_arguments_keep_their_names_and_order(name):
    import attnlib

    positional, keywords = CONTRACT[name]
    parameters = inspect.signature(getattr(attnlib, name)).parameters
    assert list(parameters)[: len(positional.split())] == positional.split()
    for keyword in keywords:
        assert keyword in parameters


DEFAULTS = {
    "load_model": {"device": None, "dtype": None, "revision": None},
    "capturing": {"layers": None, "heads": None, "kinds": ("self", "cross", "pool"), "gradients": False},
    "capture": {"target": None, "layers": None, "heads": None, "internals": False, "max_memory": None},
    "explain": {"method": "rollout", "query": None, "layers": None},
    "band_map": {"scale": "lift"},
    "find_regions": {"text": True, "faces": True, "boxes": None, "masks": None},
    "TokenLayout": {"tokens": None, "spans": None},
    "Relevance": {"method": "given"},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_arguments_keep_their_defaults(name):
    import attnlib

    parameters = inspect.signature(getattr(attnlib, name)).parameters
    assert {word: parameters[word].default for word in DEFAULTS[name]} == DEFAULTS[name]


METHOD_NAMES = [
    "raw",
    "rollout",
    "gradient_rollout",
    "attention_gradient",
    "generic_relevance",
    "attention_grad_cam",
    "legrad",
    "flow",
    "attention_norm",
    "globenc",
    "alti",
    "decompx",
    "transformer_attribution",
    "attnlrp",
    "integrated_gradients",
    "grad_cam",
    "uniform",
    "random",
    "centre",
]


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_every_method_of_the_contract_has_a_card(name):
    from attnlib import METHODS

    card = METHODS[name]
    assert card.name == name
    assert card.formula
    assert card.paper or card.family == "baseline"
    assert isinstance(card.options, tuple)
    assert isinstance(card.needs, tuple)
    assert isinstance(card.deviations, tuple)
    assert name in card.to_text()


def test_a_picture_goes_from_model_to_bands(model, pixels):
    from attnlib import band_map, capture, explain

    record = capture(model, {"pixel_values": pixels}, target=[3, 7])
    assert len(record.layers) == 3
    assert record.layout.grid == (5, 7)
    assert record.layout.num_prefix_tokens == 1
    assert record.output.logits.shape == (2, 11)
    layer = record.layers[1]
    assert (layer.kind, layer.index, layer.num_heads, layer.num_queries, layer.num_keys) == (
        "self",
        1,
        2,
        36,
        36,
    )
    assert layer.weights(heads=[1], queries=[0, 4, 35]).shape == (2, 1, 3, 36)
    assert layer.gradients(queries=0).shape == (2, 2, 1, 36)
    relevance = explain(record)
    assert relevance.method == "rollout"
    assert relevance.scores.shape == (2, 36)
    assert relevance.heatmap().shape == (2, 5, 7)
    torch.testing.assert_close(relevance.share().sum(dim=(1, 2)), torch.ones(2))
    bands = band_map(relevance)
    assert bands.labels.shape == (2, 5, 7)
    assert set(bands.labels.unique().tolist()) <= {0, 1, 2, 3}


def test_a_target_function_that_returns_more_than_one_score_per_item_is_refused(model, pixels):
    from attnlib import capture
    from attnlib.errors import InputError

    with pytest.raises(InputError, match=r"\[2, 11\].*one score per item"):
        capture(model, {"pixel_values": pixels}, target=lambda output: output.logits)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_capturing_is_filled_by_the_forward_passes_inside_the_block(model, pixels):
    from attnlib import capturing, explain

    with capturing(model, gradients=True) as record:
        output = model(pixel_values=pixels)
    record.differentiate(output.logits[:, 5].sum())
    inside = explain(record, "generic_relevance").scores
    assert inside.shape == (2, 36)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("query", [0, 35, (4, 6), "mean", [0, 1], "all"])
def test_every_form_of_query_is_understood(model, pixels, query):
    from attnlib import capture, explain

    record = capture(model, {"pixel_values": pixels})
    scores = explain(record, "rollout", query=query).scores
    assert scores.shape == ((2, 36, 36) if query == "all" else (2, 36))
    torch.testing.assert_close(scores.sum(dim=-1), torch.ones(scores.shape[:-1]))


def test_an_empty_selection_is_an_error_never_all(model, pixels):
    from attnlib import AttnlibError, capture, explain

    record = capture(model, {"pixel_values": pixels})
    for wrong in (
        lambda: record.select(layers=[]),
        lambda: record.layers[0].weights(heads=[]),
        lambda: record.layers[0].weights(queries=[]),
        lambda: explain(record, layers=[]),
        lambda: explain(record, query=[]),
        lambda: capture(model, {"pixel_values": pixels}, layers=[]),
    ):
        with pytest.raises(AttnlibError):
            wrong()


def test_a_method_that_needs_more_names_the_capture_argument(model, pixels):
    from attnlib import NeedsError, capture, explain

    record = capture(model, {"pixel_values": pixels})
    with pytest.raises(NeedsError, match="target"):
        explain(record, "generic_relevance")
    with pytest.raises(NeedsError, match="internals"):
        explain(record, "attention_norm")


def test_an_interpretation_has_what_the_contract_names():
    import json

    from attnlib import Regions, Relevance, TokenLayout, interpret

    left = np.zeros((40, 56), dtype=bool)
    left[:, :16] = True
    heat = torch.full((5, 7), 0.2)
    heat[:, :2] = 3.0
    relevance = Relevance(heat.reshape(1, -1), TokenLayout((5, 7), 8))
    told = interpret(relevance, Regions.from_masks({"the left": left}))
    claim = told.claim("the left")
    assert claim is not None
    assert claim in told.claims
    assert claim.band == "highest"
    assert (claim.region, claim.stability, set(claim.evidence)) == ("the left", None, {"rank"})
    assert claim.share == pytest.approx(30 / 35)
    assert claim.area == pytest.approx(2 / 7)
    assert claim.lift == pytest.approx(3)
    assert "the left" in claim.text.lower()
    assert json.loads(told.to_json())["schema"] == "attnlib.interpretation/1"
    assert "the left" in told.to_markdown().lower()
    assert "the left" in told.to_html().lower()


def test_several_streams_need_a_choice_before_there_is_one_layout():
    from attnlib import AttentionRecord
    from attnlib.errors import LayoutError
    from attnlib.record import GivenCall

    calls = [GivenCall("vision", torch.rand(1, 2, 5, 5)), GivenCall("text", torch.rand(1, 2, 3, 3))]
    record = AttentionRecord.from_streams(calls)
    with pytest.raises(LayoutError, match="select"):
        record.layout  # noqa: B018
    assert record.select(stream="text").layout.num_tokens == 3
    assert isinstance(record.layers, tuple)


def test_a_score_is_differentiated_into_the_record(model, pixels):
    from attnlib import NeedsError, capture, capturing

    with capturing(model, gradients=True) as record:
        output = model(pixel_values=pixels)
    assert record.output is output
    assert record.differentiate(output.logits[:, 3].sum()) is record
    expected = capture(model, {"pixel_values": pixels}, target=3)
    torch.testing.assert_close(record.layers[1].gradients(), expected.layers[1].gradients())
    with capturing(model) as plain:
        output = model(pixel_values=pixels)
    with pytest.raises(NeedsError, match="gradients=True"):
        plain.differentiate(output.logits.sum())


def test_a_relevance_comes_back_from_a_file_as_it_was(model, pixels, tmp_path):
    from attnlib import Relevance, capture, explain

    made = explain(capture(model, {"pixel_values": pixels}), "rollout", query=(2, 3), start_layer=1)
    path = made.save(tmp_path / "one" / "map.safetensors")
    again = Relevance.load(path)
    torch.testing.assert_close(again.scores, made.scores, rtol=0, atol=0)
    assert again.layout == made.layout
    assert (again.method, again.query, dict(again.options)) == (made.method, made.query, dict(made.options))
    assert again.provenance == made.provenance
    frame = made.to_frame()
    assert len(frame) == 2 * 36
    assert {"item", "token", "score", "label", "row", "column", "share"} <= set(frame.columns)
