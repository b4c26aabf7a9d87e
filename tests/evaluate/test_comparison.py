"""Comparison of maps: rank correlation, overlap of the strongest, overlap of mass, difference."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr


@pytest.fixture
def maps():
    from attnlib import Relevance, TokenLayout

    torch.manual_seed(3)
    layout = TokenLayout((5, 7), 4, ("class",), readout=[0])

    def make(scores):
        return Relevance(scores, layout)

    first = torch.rand(3, 36)
    return {
        "a": make(first),
        "b": make(torch.rand(3, 36)),
        "twice a": make(2 * first),
        "signed": make(torch.randn(3, 36)),
    }


def test_rank_correlation_is_spearmans_and_overlaps_are_what_they_say(maps):
    from attnlib import compare

    found = compare(maps, top=0.2)
    assert found.names == ("a", "b", "twice a", "signed")
    assert found.top == 7
    for item in range(3):
        for i, first in enumerate(maps.values()):
            for j, second in enumerate(maps.values()):
                x, y = first.scores[item, 1:].numpy(), second.scores[item, 1:].numpy()
                assert float(found.rank_correlation[item, i, j]) == pytest.approx(spearmanr(x, y).statistic)
                same = len(set(np.argsort(-x)[:7]) & set(np.argsort(-y)[:7])) / 7
                if "signed" not in (found.names[i], found.names[j]):
                    assert float(found.top_overlap[item, i, j]) == pytest.approx(same)
                    overlap = np.minimum(x / x.sum(), y / y.sum()).sum()
                    assert float(found.mass_overlap[item, i, j]) == pytest.approx(overlap, rel=1e-5)
    torch.testing.assert_close(
        found.difference("a", "twice a"), torch.zeros(3, 5, 7).double(), atol=1e-7, rtol=0
    )
    difference = found.difference("a", "b")
    torch.testing.assert_close(
        difference, (maps["a"].share() - maps["b"].share()).double(), atol=1e-6, rtol=0
    )
    frame = found.to_frame()
    assert len(frame) == 3 * 6
    assert set(frame["first"]) | set(frame["second"]) == set(maps)


def test_a_map_without_order_has_no_rank_correlation_and_says_so(maps):
    from attnlib import Relevance, compare

    flat = Relevance(torch.ones(3, 36), maps["a"].layout)
    found = compare({"a": maps["a"], "flat": flat})
    assert found.rank_correlation[:, 0, 1].isnan().all()
    assert "no order" in " ".join(found.notes)


def test_patches_that_tie_for_the_last_places_share_them():
    from attnlib import Relevance, TokenLayout, compare

    layout = TokenLayout((2, 3), 4, (), readout="patches")
    rows = {
        "even": [1, 1, 1, 1, 1, 1],
        "ends": [3, 0, 0, 0, 0, 3],
        "three": [0, 2, 2, 2, 0, 0],
        "one": [0, 0, 0, 0, 0, 5],
    }
    found = compare(
        {name: Relevance(torch.tensor([row]).float(), layout) for name, row in rows.items()}, top=1 / 3
    )
    assert found.top == 2
    overlap = found.top_overlap[0]
    torch.testing.assert_close(overlap.diagonal(), torch.ones(4).double())
    assert float(overlap[0, 1]) == pytest.approx(1 / 3)  # what chance gets
    assert float(overlap[0, 2]) == pytest.approx(1 / 2)  # a third of a place on each of three
    assert float(overlap[1, 2]) == 0
    # "one": its place, and a fifth of a place on each of the five others
    torch.testing.assert_close(overlap[3, 1], torch.tensor((1 + 0.2) / 2).double())


def test_maps_on_other_grids_keep_their_mass_in_each_place():
    from attnlib import Relevance, TokenLayout, compare

    coarse = Relevance(torch.rand(2, 6), TokenLayout((2, 3), 8))
    fine = Relevance(
        coarse.heatmap().repeat_interleave(2, -2).repeat_interleave(2, -1).flatten(1) / 4,
        TokenLayout((4, 6), 4),
    )
    found = compare({"coarse": coarse, "fine": fine})
    assert found.maps.shape == (2, 2, 2, 3)
    torch.testing.assert_close(found.maps[0], found.maps[1], atol=1e-7, rtol=0)
    assert "2x3" in " ".join(found.notes)
    assert found.matrix("mass_overlap")[0, 1] == pytest.approx(1.0, abs=1e-6)


def test_a_cut_out_is_compared_where_both_maps_look():
    from attnlib import Relevance, TokenLayout, compare
    from attnlib.picture import View

    layout = TokenLayout((4, 4), 2)
    whole, half = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
    whole[0, 1, 1] = 1.0  # the square (2..4, 2..4) of 8x8 pixels
    half[0, 2:, 2:] = 0.25  # the same square, of the upper left 4x4 pixels
    found = compare(
        {
            "whole": Relevance(whole.flatten(1), layout, views=(View.whole((8, 8), (8, 8)),)),
            "half": Relevance(half.flatten(1), layout, views=(View((8, 8), (8, 8), (0.0, 0.0, 4.0, 4.0)),)),
        }
    )
    torch.testing.assert_close(found.maps[0], found.maps[1])
    apart = View((8, 8), (8, 8), (5.0, 5.0, 8.0, 8.0))
    with pytest.raises(ValueError, match="do not overlap"):
        compare(
            {
                "a": Relevance(half.flatten(1), layout, views=(View((8, 8), (8, 8), (0.0, 0.0, 4.0, 4.0)),)),
                "b": Relevance(half.flatten(1), layout, views=(apart,)),
            }
        )


def test_methods_layers_models_and_pictures_of_records_are_compared():
    from attnlib import AttentionRecord, TokenLayout, compare, explain

    torch.manual_seed(1)
    layout = TokenLayout((2, 3), 4, ("class",), readout=[0])
    weights = [torch.rand(2, 3, 7, 7).softmax(-1) for _ in range(5)]
    record = AttentionRecord.from_weights(weights, layout=layout)
    by_method = compare(record)
    assert {"raw", "rollout", "uniform", "random", "centre"} <= set(by_method.names)
    assert "generic_relevance" not in by_method.names
    gradients = AttentionRecord.from_weights(weights, gradients=weights, layout=layout)
    assert "generic_relevance" in compare(gradients).names
    variants = compare(record, methods={"right": "rollout", "late": ("rollout", {"start_layer": 3})})
    wanted = explain(record, "rollout", start_layer=3).share().double()
    torch.testing.assert_close(variants.maps[1], wanted, atol=1e-6, rtol=0)
    assert compare(record, layers=[0, 3]).names == ("raw, layer 0", "raw, layer 3")
    other = AttentionRecord.from_weights([w.flip(-1) for w in weights], layout=layout)
    assert compare({"one": record, "other": other}, methods=["raw"]).names == ("one", "other")
    assert compare(explain(record)).names == ("item 0", "item 1")


def test_a_method_may_stand_there_twice_with_options_and_a_query_of_its_own():
    from attnlib import AttentionRecord, TokenLayout, compare, explain

    torch.manual_seed(2)
    layout = TokenLayout((2, 3), 4, ("class",), readout=[0])
    weights = [torch.rand(2, 3, 7, 7).softmax(-1) for _ in range(4)]
    record = AttentionRecord.from_weights(weights, gradients=weights, layout=layout)
    calls = ["rollout", ("rollout", {"start_layer": 2, "query": (1, 2)}), "legrad"]
    found = compare(record, methods=calls, query=(0, 1))
    assert found.names == ("rollout", "rollout 1", "legrad")
    for place, wanted in enumerate(({"query": (0, 1)}, {"query": (1, 2), "start_layer": 2})):
        share = explain(record, "rollout", **wanted).share().double()
        torch.testing.assert_close(found.maps[place], share, atol=1e-6, rtol=0)
    assert compare(record, layers=(0, 2), methods="legrad", query=(0, 1)).names[1] == "legrad, layer 2"
    for wrong in ([("rollout",), "raw"], {"a": 3, "b": "raw"}):
        with pytest.raises(ValueError, match=r"name or \(name, options\)"):
            compare(record, methods=wrong)
    for top in (True, 0, float("nan")):
        with pytest.raises(ValueError, match="share of the patches"):
            compare(record, top=top)
    with pytest.raises(ValueError, match="at least two"):
        compare(record, layers=1)
    with pytest.raises(ValueError, match="pairs of names"):
        compare(record).difference_figure(["raw", "rollout"])


def test_what_cannot_be_compared_is_refused(maps):
    from attnlib import Relevance, TokenLayout, compare

    with pytest.raises(ValueError, match="at least two"):
        compare({"a": maps["a"]})
    with pytest.raises(ValueError, match="batch sizes"):
        compare({"a": maps["a"], "b": Relevance(torch.rand(2, 36), maps["a"].layout)})
    text = Relevance(torch.rand(3, 4), TokenLayout(None, tokens=["a", "b", "c", "d"]))
    with pytest.raises(ValueError, match="text"):
        compare({"a": maps["a"], "text": text})
    with pytest.raises(ValueError, match="top"):
        compare(maps, top=0.0)
    with pytest.raises(ValueError, match="not compared"):
        compare(maps).difference("a", "c")


def test_the_figure_draws_the_numbers_of_the_comparison(maps):
    from attnlib import compare

    found = compare(maps)
    figure = found.figure("mass_overlap", index=2)
    assert len(figure.data) == 5
    np.testing.assert_allclose(figure.data[0].z, found.maps[0, 2].numpy())
    np.testing.assert_allclose(figure.data[-1].z, found.mass_overlap[2].numpy())
    assert {trace.zmax for trace in figure.data[:4]} == {float(found.maps[:, 2].max())}
    difference = found.difference_figure([("a", "b"), ("a", "signed")], index=1)
    np.testing.assert_allclose(difference.data[0].z, found.difference("a", "b")[1].numpy())
    assert difference.data[0].zmin == -difference.data[0].zmax
