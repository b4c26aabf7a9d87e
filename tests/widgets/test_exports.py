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
    picture = f"picture-{scene['picture'].sha256[:12]}.png"  # no file held it
    assert f"the picture to {picture}" in opened.downloads.children[1].value
    files = sorted(one.name for one in folder.iterdir())
    assert files == [picture, "seen.html", "seen.json", "seen.png", "seen.yaml"]
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
    assert given == opened.parameters(folder)
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


def _notebook_takes(root, name, given):
    import nbformat

    from attnlib.report.notebooks import notebook_parameters
    from attnlib.report.parameters import checked

    return checked(notebook_parameters(nbformat.read(root / "notebooks" / f"{name}.ipynb", 4)), given)


def test_a_pasted_picture_is_written_beside_its_parameters_and_opens_the_same_view(
    tmp_path, root, monkeypatch
):
    import io

    from attnlib import explore

    pixels = np.random.default_rng(3).integers(0, 255, (53, 61, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    opened = explore(
        "scenes-vit", regions=None, layer=1, query=(2, 3), layers="max", direction="to", palette="cividis"
    )
    assert opened.wait(60)
    opened._pasted(buffer.getvalue())
    assert opened.wait(60)
    assert opened.problem.value == ""
    path = opened.save_parameters(tmp_path / "view.yaml")
    given = yaml.safe_load(path.read_text())
    assert _notebook_takes(root, "01_layers_and_heads", given) == given
    with Image.open(tmp_path / given["picture"]) as kept:
        np.testing.assert_array_equal(np.asarray(kept), pixels)
    monkeypatch.chdir(tmp_path)
    chosen = {name: given[name] for name in given if name not in ("model", "picture")}
    again = explore(given["model"], given["picture"], regions=None, **chosen)
    assert again.wait(60)
    first, second = opened.state.to_dict(), again.state.to_dict()
    assert {**first, "picture": ""} == {**second, "picture": ""}
    np.testing.assert_array_equal(again.bench.picture.pixels, pixels)
    np.testing.assert_allclose(again.bench.findings.relevance.scores, opened.bench.findings.relevance.scores)


def test_a_picture_that_has_a_file_is_named_and_not_written_again(scene, tmp_path):
    from attnlib import explore

    file = tmp_path / "mine.png"
    scene["picture"].to_pil().save(file)
    opened = explore("scenes-vit", file, regions=None, size=None)
    assert opened.wait(60)
    given = yaml.safe_load(opened.save_parameters(tmp_path / "view.yaml").read_text())
    assert given["picture"] == str(file)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["mine.png", "view.yaml"]


def test_what_parameters_cannot_make_again_is_said_in_their_file(saved):
    words = (saved[1] / "seen.yaml").read_text()
    assert "captured elsewhere" in words
    assert "given by hand" in words
    assert (
        json.loads((saved[1] / "seen.json").read_text())["beyond_parameters"]
        == saved[0].bench.beyond_parameters()
    )


def test_size_options_and_both_texts_are_among_the_parameters(root):
    from attnlib import explore

    opened = explore("dinov2-small-saliency", regions=None, size=(98, 126), options={"discard_ratio": 0.5})
    assert opened.wait(60)
    given = opened.parameters()
    assert (given["size"], given["options"]) == ([98, 126], {"discard_ratio": 0.5})
    assert _notebook_takes(root, "01_layers_and_heads", given) == given
    again = explore(
        given["model"], given["picture"], regions=None, size=given["size"], options=given["options"]
    )
    assert again.wait(60)
    assert again.bench.depth() == 12
    np.testing.assert_allclose(again.bench.findings.relevance.scores, opened.bench.findings.relevance.scores)

    texts = explore("minilm-l6", ["one text", "and another"])
    assert texts.wait(60)
    texts.menu.item.value = 1
    assert texts.wait(60)
    given = texts.parameters()
    assert (given["sentence"], given["other"]) == ("and another", "one text")
    assert _notebook_takes(root, "09_text_attention", given) == given


@pytest.mark.parametrize(
    "words", ["smile \U0001f600 and \x7f \u2028", r"not a sign: \ud83d\ude00 \n", "a: b # c - 'd' \"e\""]
)
def test_any_text_comes_back_from_the_parameters_as_it_was(words):
    from attnlib.widgets.exporting import parameters_yaml

    given = {"sentence": words, "options": {words: [words, 1.5, None]}}
    assert yaml.safe_load(parameters_yaml(given, [words])) == given
