"""What people give, in the forms in which they have it: numbers of numpy and torch, any dtype, under no_grad."""

import numpy as np
import pytest
import torch

INDEX_FORMS = {
    "int": lambda i: i,
    "numpy integer": lambda i: np.int64(i),
    "list": lambda i: [i],
    "tuple": lambda i: (i,),
    "range": lambda i: range(i, i + 1),
    "list of numpy integers": lambda i: [np.int64(i)],
    "array": lambda i: np.array([i]),
    "tensor": lambda i: torch.tensor([i]),
}


@pytest.mark.parametrize("form", INDEX_FORMS)
def test_an_index_may_come_in_any_form(model, pixels, form):
    from attnlib import capture, explain

    record = capture(model, {"pixel_values": pixels}, layers=INDEX_FORMS[form](2), heads=INDEX_FORMS[form](1))
    assert [layer.index for layer in record.layers] == [2]
    assert record.layers[0].heads == (1,)
    whole = capture(model, {"pixel_values": pixels})
    one = INDEX_FORMS[form]
    assert [layer.index for layer in whole.select(layers=one(1)).layers] == [1]
    row = whole.layers[1].weights(heads=one(1), queries=one(7))
    torch.testing.assert_close(row, whole.layers[1].weights()[:, 1:2, 7:8])
    torch.testing.assert_close(
        explain(whole, "raw", layers=one(1), query=0).scores,
        explain(whole, "raw", layers=[1], query=0).scores,
    )


@pytest.mark.parametrize("target", [np.int64(3), np.array(3), torch.tensor(3), torch.tensor([3, 3])])
def test_methods_that_run_the_model_again_take_the_same_targets(model, pixels, target):
    from attnlib import capture, explain

    record = capture(model, {"pixel_values": pixels}, target=target, internals=True)
    plain = capture(model, {"pixel_values": pixels}, target=3, internals=True)
    for name in ("decompx", "gradient_x_input", "attnlrp"):
        torch.testing.assert_close(explain(record, name).scores, explain(plain, name).scores)


@pytest.mark.parametrize("form", [list, tuple, np.array, torch.tensor])
def test_targets_one_per_item_may_come_in_any_form(model, pixels, form):
    from attnlib import capture

    slopes = capture(model, {"pixel_values": pixels}, target=form([3, 7])).layers[0].gradients()
    expected = capture(model, {"pixel_values": pixels}, target=lambda out: out.logits[[0, 1], [3, 7]])
    torch.testing.assert_close(slopes, expected.layers[0].gradients())


def test_a_target_is_found_in_outputs_that_are_plain_mappings(model, pixels):
    from attnlib import capture

    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, pixel_values):
            return {"logits": self.inner(pixel_values=pixel_values).logits}

    slopes = capture(Plain().eval(), {"pixel_values": pixels}, target=5).layers[2].gradients()
    expected = capture(model, {"pixel_values": pixels}, target=5).layers[2].gradients()
    torch.testing.assert_close(slopes, expected)


@pytest.mark.parametrize("wrong", [0, -1, True])
def test_memory_is_allowed_in_bytes(model, pixels, wrong):
    from attnlib import capture, explain
    from attnlib.errors import BudgetError, InputError

    record = capture(model, {"pixel_values": pixels}, max_memory=2e9)
    assert explain(record, "rollout", max_memory=2e9).scores.shape == (2, 36)
    with pytest.raises(BudgetError, match="max_memory"):
        capture(model, {"pixel_values": pixels}, max_memory=10.0)
    for wanted in (
        lambda: capture(model, {"pixel_values": pixels}, max_memory=wrong),
        lambda: explain(record, "rollout", max_memory=wrong),
    ):
        with pytest.raises(InputError, match="number of bytes"):
            wanted()


def test_matrices_of_numpy_make_the_record_that_tensors_make():
    from attnlib import AttentionRecord, explain

    weights = torch.rand(3, 2, 2, 5, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    arrays = weights.numpy()
    arrays.setflags(write=False)
    for given in (arrays, list(arrays), tuple(weights)):
        record = AttentionRecord.from_weights(given, gradients=given)
        torch.testing.assert_close(record.layers[2].weights(), weights[2], rtol=0, atol=0)
        torch.testing.assert_close(record.layers[0].gradients(), weights[0], rtol=0, atol=0)
    assert explain(record, "rollout", query=0).scores.dtype == torch.float64


def test_the_empty_tuple_of_fused_attention_is_explained():
    from attnlib import AttentionRecord
    from attnlib.errors import InputError

    with pytest.raises(InputError, match=r"output_attentions=True.*capture"):
        AttentionRecord.from_weights(())
    with pytest.raises(InputError, match="layer 1"):
        AttentionRecord.from_weights([torch.rand(1, 2, 3, 3), None])


@pytest.mark.parametrize(
    "scores", [torch.arange(36.0)[None], torch.arange(36)[None], np.arange(36)[None], [list(range(36))]]
)
def test_a_relevance_is_built_by_hand_from_any_numbers(scores):
    from attnlib import Relevance, TokenLayout, band_map

    relevance = Relevance(scores, TokenLayout((5, 7), 8, 1, 0))
    assert (relevance.method, relevance.batch_size) == ("given", 1)
    assert relevance.heatmap()[0, 4, 6] == 35
    assert float(relevance.share()[0, 4, 6]) == pytest.approx(35 / sum(range(36)))
    assert band_map(relevance).labels[0, 0, 0] == 0


@pytest.mark.parametrize("number", [int, np.int64, torch.tensor])
def test_a_layout_takes_numbers_from_anywhere(number):
    from attnlib import TokenLayout

    made = TokenLayout((number(5), number(7)), number(8), number(2), number(0))
    assert made == TokenLayout((5, 7), (8, 8), ("class", "prefix 2"), (0,))
    assert TokenLayout([5, 7], (8, 8), ["class", "prefix 2"], np.array([0, 1])).readout == (0, 1)
    assert TokenLayout(torch.Size([5, 7]), readout=torch.tensor([3])).readout == (3,)


@pytest.mark.parametrize(
    "wrong",
    [
        {"grid": (5,)},
        {"patch_size": 0},
        {"prefix_tokens": -1},
        {"readout": []},
        {"readout": [99]},
        {"readout": [True]},
        {"readout": "class"},
    ],
    ids=str,
)
def test_a_layout_that_makes_no_sense_is_refused(wrong):
    from attnlib import TokenLayout
    from attnlib.errors import InputError

    with pytest.raises(InputError):
        TokenLayout(**{"grid": (5, 7), "patch_size": 8, **wrong})


def test_a_fourth_cut_says_where_red_begins():
    from attnlib import Relevance, TokenLayout, band_map
    from attnlib.errors import InputError

    relevance = Relevance(torch.tensor([[1.0, 1.0, 1.0, 17.0]]), TokenLayout((2, 2)))
    bands = band_map(relevance, cuts=(0.5, 1.5, 3, 3.3))
    assert (bands.cuts, bands.red_from) == ((0.5, 1.5, 3.0), 3.3)
    assert bands.shades.flatten().tolist() == [0, 0, 0, 4]
    assert band_map(relevance, cuts=np.array([0.5, 1.5, 3])).shades.flatten().tolist() == [0, 0, 0, 3]
    for wrong in ((0.5, 1.5, 3, 2), (0.5, 1.5, 3, 6, 9)):
        with pytest.raises(InputError, match="three increasing"):
            band_map(relevance, cuts=wrong)


def test_results_of_many_numbers_name_themselves_in_one_line():
    from attnlib import AttentionRecord, Relevance, TokenLayout, band_map, layer_profile, trust

    layout = TokenLayout((2, 2), 8, 1, 0)
    relevance = Relevance(torch.tensor([[9.0, 0.0, 1, 1, 6]]), layout, "rollout")
    assert (
        repr(band_map(relevance))
        == "Bands(of 2x2 patches by lift: minimal 25.0 %, low 50.0 %, moderate 0 %, highest 25.0 %)"
    )
    both = Relevance(relevance.scores.expand(2, -1), layout)
    assert repr(band_map(both, scale="mass")).startswith("Bands(2 maps of 2x2 patches by mass; minimal")
    record = AttentionRecord.from_weights([torch.eye(5).expand(1, 3, 5, 5)] * 2, layout=layout)
    assert repr(layer_profile(record)) == "LayerProfile(2 layers, 3 heads; all patches)"
    told = trust(relevance)
    assert repr(told) == f"Trust(rollout, {len(told.numbers)} numbers; spike_share 0.75)"
    assert str(told) == told.to_markdown()


def test_maps_are_compared_one_by_one_or_as_a_list():
    from attnlib import Relevance, TokenLayout, compare

    layout = TokenLayout((2, 3))
    one = Relevance(torch.tensor([[1.0, 2, 3, 4, 5, 6]]), layout, "rollout")
    other = Relevance(torch.tensor([[6.0, 5, 4, 3, 2, 1]]), layout, "raw")
    together, apart = compare([one, other]), compare(one, other)
    assert together.names == apart.names == ("rollout", "raw")
    assert float(apart.rank_correlation[0, 0, 1]) == pytest.approx(-1)
    assert compare(one, other, top=1).top == 6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_shares_do_not_depend_on_how_the_scores_are_stored(dtype, tmp_path):
    from attnlib import Relevance, TokenLayout, band_map

    largest = min(torch.finfo(dtype).max / 2, 1e38)  # their sum is beyond float32
    scores = torch.full((2, 1370), largest, dtype=dtype)
    scores[:, 5] = 0
    relevance = Relevance(scores, TokenLayout((37, 37), 14, 1, 0))
    wide = torch.promote_types(dtype, torch.float32)
    assert relevance.share().dtype == relevance.lift().dtype == wide
    torch.testing.assert_close(relevance.share().sum(dim=(1, 2)), torch.ones(2, dtype=wide))
    torch.testing.assert_close(relevance.prefix_share(), torch.full((2,), 1 / 1369, dtype=wide))
    torch.testing.assert_close(relevance.lift()[:, 3, 3], torch.full((2,), 1369 / 1368, dtype=wide))
    assert band_map(relevance).labels.flatten(1).sum(dim=1).tolist() == [1368, 1368]
    assert len(relevance.to_frame()) == 2 * 1370
    torch.testing.assert_close(Relevance.load(relevance.save(tmp_path / "r")).scores, scores)


def test_layers_of_different_batches_make_no_record():
    from attnlib import AttentionRecord
    from attnlib.errors import InputError

    with pytest.raises(InputError, match="layer 1 are for a batch of 3, those of layer 0 for 2"):
        AttentionRecord.from_weights([torch.rand(2, 2, 5, 5), torch.rand(3, 2, 5, 5)])


@pytest.mark.parametrize("word", ["class", "cls", "[CLS]", "CLS", torch.tensor(0), [torch.tensor(0)], 0, -36])
def test_the_class_token_is_known_by_its_names(model, pixels, word):
    from attnlib import capture, explain

    record = capture(model, {"pixel_values": pixels})
    scores = explain(record, "raw", query=word).scores
    torch.testing.assert_close(scores, record.layers[-1].weights(queries=0).mean(dim=1)[:, 0])


def test_a_model_that_draws_random_numbers_is_run_again_with_those_it_drew():
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    from attnlib import capture, explain

    torch.manual_seed(3)
    config = ViTMAEConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=29, image_size=40,
        patch_size=8, decoder_hidden_size=24, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
        decoder_intermediate_size=29,
    )  # fmt: skip
    model = ViTMAEForPreTraining(config).eval()
    inputs = {"pixel_values": torch.randn(1, 3, 40, 40)}
    record = capture(model, inputs, target=lambda output: output.logits.flatten(1).sum(dim=1))
    before = torch.get_rng_state()
    again = record.on_rerun()
    assert torch.equal(again.mask, record.output.mask)
    torch.testing.assert_close(again.logits, record.output.logits)
    found = explain(record.select(stream="vision"), "gradient_x_input")
    assert torch.equal(torch.get_rng_state(), before)
    hidden = record.output.mask.bool()
    assert not found.heatmap().flatten(1)[hidden].any()
    assert found.heatmap().flatten(1)[~hidden].any()


def test_scores_of_a_model_in_bfloat16_are_wide_and_say_where_they_are_coarse(model, pixels):
    import copy

    from attnlib import capture, explain

    small = copy.deepcopy(model).to(torch.bfloat16)
    record = capture(small, {"pixel_values": pixels.to(torch.bfloat16)}, target=3, internals=True)
    assert record.layers[0].weights().dtype == torch.float32
    for name, coarse in (("rollout", False), ("generic_relevance", False), ("gradient_x_input", True)):
        found = explain(record, name)
        assert found.scores.dtype == torch.float32
        assert ("bfloat16" in " ".join(found.notes)) is coarse


@pytest.mark.parametrize("target", [3, [3, 3], "LABEL_3", lambda output: output.logits[:, 3]])
def test_a_target_is_explained_under_no_grad_too(model, pixels, target):
    from attnlib import capture, explain

    expected = capture(model, {"pixel_values": pixels}, target=3)
    with torch.no_grad():
        record = capture(model, {"pixel_values": pixels}, target=target, internals=True)
        inside = explain(record, "gradient_x_input").scores
    torch.testing.assert_close(record.layers[1].gradients(), expected.layers[1].gradients())
    torch.testing.assert_close(inside, explain(record, "gradient_x_input").scores)


@pytest.mark.parametrize("method", ["rollout", "flow", "generic_relevance", "legrad", "gradient_rollout"])
def test_a_method_that_needs_rows_that_were_not_kept_says_so(model, pixels, method):
    from attnlib import capture, explain
    from attnlib.errors import InputError

    record = capture(model, {"pixel_values": pixels}, target=3, queries=[0, 3])
    with pytest.raises(InputError, match=r"of the queries .* was not captured; kept: \[0, 3\]"):
        explain(record, method)
    assert explain(record, "raw", query=3).scores.shape == (2, 36)
