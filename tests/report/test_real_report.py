"""The main job, from the command line to the page: a real picture, a real pretrained model."""

import hashlib
import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory, root):
    """Run attnlib report on the poster in an empty folder."""
    pytest.importorskip("onnx", reason="needs the extra models")
    folder = tmp_path_factory.mktemp("report")
    done = subprocess.run(
        [sys.executable, "-m", "attnlib.cli", "report", root / "data" / "images" / "poster.png"],
        cwd=folder,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return folder, done


def test_it_says_where_the_report_is_and_shows_progress(made):
    folder, done = made
    page = os.path.join("reports", "poster.html")
    assert done.stdout == f"report: {page}\n"
    assert "poster.png" in done.stderr
    assert "cells" in done.stderr
    assert "WARNING" not in done.stderr
    assert sorted(p.name for p in (folder / "reports").iterdir()) == ["poster.html", "poster.json"]


def test_numbers_in_table_text_and_manifest_are_those_of_the_map(made):
    from attnlib import band_map
    from attnlib.bands import percent
    from attnlib.picture import sample
    from attnlib.report import map_picture

    folder, _ = made
    text = (folder / "reports" / "poster.html").read_text()
    mapped = map_picture("sample:poster")
    bands = band_map(mapped.relevance)
    for shade in range(5):
        assert percent(bands.shade_share[0, shade]) in text
    assert f"{float(bands.lift.max()):.1f}x" in text
    assert f"{float(bands.share[0, 3]) * 100:.1f} % of the attention" in text
    about = json.loads((folder / "reports" / "poster.json").read_text())
    (origin,) = about["provenance"]
    assert origin["picture"]["sha256"] == mapped.picture.sha256
    of_the_file = hashlib.sha256(sample("poster").read_bytes()).hexdigest()
    assert about["picture"]["file_sha256"] == origin["picture"]["file_sha256"] == of_the_file
    assert of_the_file in text
    assert about["model"] == origin["model"]
    assert origin["model"] == "dinov2-small-saliency"
    assert origin["options"]["start_layer"] == "6"
    assert mapped.said.sentences[0].split(" (")[0] in text


def test_the_page_is_small_and_names_no_folder_of_this_machine(made, root):
    folder, _ = made
    page = folder / "reports" / "poster.html"
    assert page.stat().st_size < 8_000_000
    for text in (page.read_text(), page.with_suffix(".json").read_text()):
        assert str(root) not in text
        assert str(folder) not in text


@pytest.mark.browser
def test_every_figure_is_visible_with_the_network_off(made, visit):
    folder, _ = made
    page = visit(folder / "reports" / "poster.html")
    page.wait_for_selector("canvas")
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert page.locator("figure img").count() >= 3
    assert page.locator("svg circle").count() >= 12 * 6 * 3
    assert page.locator("h2").count() >= 6
    assert page.locator("img:not([alt])").count() == 0
    assert page.problems == []
    assert page.outside == []
