"""Export of plotly figures: what is missing is named with the extra that brings it."""

import copy
import pickle

import plotly.graph_objects as go
import pytest
import torch


@pytest.fixture
def figures():
    from attnlib import Relevance, TokenLayout, overlay
    from attnlib.viz import attention_matrix, layers_and_heads, maps_figure, score_figure

    relevance = Relevance(torch.rand(1, 36), TokenLayout((5, 7), 10, 1, (0,)))
    return {
        "overlay": overlay(relevance, torch.rand(3, 50, 70)),
        "matrix": attention_matrix(torch.rand(5, 7)),
        "layers": layers_and_heads(torch.rand(3, 2, 5, 7)),
        "maps": maps_figure(["a", "b"], torch.rand(2, 5, 7)),
        "scores": score_figure(["a"], [0.5], low=[0.4], high=[0.6]),
    }


def test_without_kaleido_every_figure_names_the_extra_and_what_works_without_it(
    figures, monkeypatch, tmp_path
):
    import attnlib.viz.figure as module
    from attnlib.errors import MissingPackageError

    monkeypatch.setattr(module, "find_spec", lambda _: None)
    for figure in figures.values():
        with pytest.raises(MissingPackageError, match=r"attnlib\[export\].*overlay_image"):
            figure.write_image(tmp_path / "map.png")
        with pytest.raises(ImportError, match="kaleido"):
            figure.to_image("svg")
        figure.write_html(tmp_path / "map.html", include_plotlyjs=False)
    assert [path.name for path in tmp_path.iterdir()] == ["map.html"]


def test_figures_are_plotly_figures_that_can_be_copied_and_kept(figures):
    for figure in figures.values():
        assert isinstance(figure, go.Figure)
        assert copy.deepcopy(figure) == figure
        assert pickle.loads(pickle.dumps(figure)) == figure
        assert go.Figure(figure) == figure
