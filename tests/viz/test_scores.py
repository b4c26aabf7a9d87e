"""Dots and intervals are the numbers that were given."""

import pytest


def test_dots_and_intervals_are_the_given_numbers():
    from attnlib.viz import score_figure

    figure = score_figure(
        ["a", "b"], [0.3, 0.1], low=[0.2, 0.05], high=[0.7, 0.1], constant=0.25, measure="mass"
    )
    trace = figure.data[0]
    assert list(trace.x) == [0.3, 0.1]
    assert list(trace.y) == ["a", "b"]
    assert list(trace.error_x.array) == pytest.approx([0.4, 0.0])
    assert list(trace.error_x.arrayminus) == pytest.approx([0.1, 0.05])
    assert figure.layout.shapes[0].x0 == 0.25
    assert figure.layout.xaxis.title.text == "mass"


def test_lists_of_different_length_are_refused():
    from attnlib import AttnlibError
    from attnlib.viz import score_figure

    with pytest.raises(AttnlibError, match="2 names, 1 values"):
        score_figure(["a", "b"], [0.3], low=[0.2], high=[0.7])
