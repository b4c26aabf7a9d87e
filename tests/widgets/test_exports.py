"""What the explorer saves is opened again: the page in a browser, picture, numbers, parameters."""

import json
import os

import numpy as np
import pytest
import yaml
from PIL import Image


@pytest.fixture(scope="module")
def saved(scene, tmp_path_factory):
    """An explorer whose four buttons were pressed, and the folder they wrote to."""
    from attnlib import explore

    folder = tmp_path_factory.mktemp("saved")
    opened = explore(
        scene["record"], scene["picture"], regions=scene["regions"], layer=1, head=1, query=(2, 5)
    )
    assert opened.wait(60)
    here = os.getcwd()
    os.chdir(folder)
    try:
        name, *buttons = opened.downloads.children[0].children
        name.value = "../seen"  # only the name counts, never a folder
        for button in buttons:
            button.click()
            assert opened.problem.value == ""
    finally:
        os.chdir(here)
    assert sorted(one.name for one in folder.iterdir()) == ["seen.html", "seen.json", "seen.png", "seen.yaml"]
    return opened, folder


def test_the_picture_is_a_picture_of_the_map(saved):
    with Image.open(saved[1] / "seen.png") as image:
        image.load()
        assert image.width > 300
        assert np.asarray(image.convert("RGB")).std() > 10


def test_the_numbers_are_those_of_the_map(saved):
    opened, folder = saved
    read = json.loads((folder / "seen.json").read_text())
    assert read["format"] == "attnlib.view/1"
    np.testing.assert_allclose(read["lift"], opened.relevance().lift(without_identity=True)[0], rtol=1e-5)
    assert read["state"] == opened.state.to_dict()


def test_the_parameters_are_taken_by_the_notebook_and_open_the_same_view(saved, scene, root):
    import nbformat

    from attnlib import explore
    from attnlib.report.notebooks import notebook_parameters
    from attnlib.report.parameters import checked

    opened, folder = saved
    given = yaml.safe_load((folder / "seen.yaml").read_text())
    assert given == opened.parameters()
    notebook = nbformat.read(root / "notebooks" / "01_layers_and_heads.ipynb", 4)
    assert checked(notebook_parameters(notebook), given) == given
    chosen = {name: given[name] for name in ("method", "layer", "head", "query")}
    again = explore(scene["record"], scene["picture"], regions=None, **chosen)
    assert again.state.to_dict() == opened.state.to_dict()
    again.wait(60)


@pytest.mark.browser
def test_the_page_opens_without_kernel_and_network_at_the_same_view(saved, scene, new_page):
    page = new_page()
    page.goto(f"file://{saved[1] / 'seen.html'}")
    page.wait_for_selector(".attnlib-viewer[data-tick]")
    page.get_by_label("map", exact=True).select_option("0")
    page.wait_for_function("() => !document.querySelector('.av-message:not([hidden])')")
    assert "where patch (2, 5) looks" in page.locator(".av-caption").first.inner_text()
    assert page.get_by_label("layer", exact=True).input_value() == "1"
    assert "even share" in page.locator("main").inner_text()
    assert page.errors == []
    assert page.outside == []
