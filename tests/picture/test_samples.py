"""The sample pictures: free, small, listed, and what their script makes."""

import importlib.util

import numpy as np
import pytest


@pytest.fixture(scope="module")
def make(root):
    spec = importlib.util.spec_from_file_location("make_pictures", root / "data/images/make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["poster", "banner", "drawing"])
def test_composed_pictures_are_what_their_script_makes(make, name):
    from attnlib import load_picture

    stored = load_picture(f"sample:{name}").pixels.astype(int)
    made = np.asarray(getattr(make, name)()).astype(int)
    # letters may differ by a shade between versions of the font renderer
    assert np.abs(stored - made).mean() < 1.0


def test_every_sample_is_listed_with_its_licence_and_all_are_small(root):
    from attnlib.picture import samples

    sources = (root / "data/images/SOURCES.md").read_text(encoding="utf-8")
    files = samples().values()
    assert len(files) >= 5
    for path in files:
        row = next(line for line in sources.splitlines() if line.startswith(f"| `{path.name}`"))
        assert any(licence in row for licence in ("CC0", "public domain", "MIT"))
    assert sum(path.stat().st_size for path in files) < 1_500_000


def test_the_samples_have_different_shapes():
    from attnlib import load_picture

    sizes = [load_picture(f"sample:{name}").size for name in ("poster", "banner", "cat")]
    assert sizes == [(800, 600), (320, 960), (300, 451)]
