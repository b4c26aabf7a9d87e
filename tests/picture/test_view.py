"""View: places in the picture and places in the model input are the same places."""

import pytest


@pytest.fixture
def view():
    from attnlib.picture import View

    return View((800, 600), (224, 224), (-100.0, 0.0, 700.0, 800.0))


def test_a_place_goes_there_and_back(view):
    x, y = view.to_input(*view.to_picture(13.0, 170.0))
    assert (x, y) == pytest.approx((13.0, 170.0))


def test_padding_lies_outside_the_picture(view):
    assert view.to_picture(0.0, 0.0) == (-100.0, 0.0)
    assert view.to_input(0.0, 0.0)[0] == pytest.approx(28.0)


def test_the_window_of_a_grid_leaves_out_the_remainder():
    from attnlib.picture import View

    view = View.whole((100, 200), (50, 100))
    assert view.grid_window((3, 7), (16, 14)) == pytest.approx((0.0, 0.0, 196.0, 96.0))
    assert view.grid_window((3, 7), None) == view.box
