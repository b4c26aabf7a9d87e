"""Fixtures shared by all tests. attnlib is imported inside fixtures, so that the shape checker comes first."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items):
    """Begin with what installs packages: minutes that another process of tests would wait for at the end."""
    items.sort(key=lambda item: item.get_closest_marker("install") is None)


@pytest.fixture(scope="session")
def root() -> Path:
    """Folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def reference():
    """Reader of the reference values: reference.case(file, name), reference.model(name) ..."""
    spec = importlib.util.spec_from_file_location("reference_values", ROOT / "tests/reference/load.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny():
    """Maker of tiny transformers models with random weights: tiny("BertModel", seed=3, vocab_size=50)."""
    import torch
    import transformers

    sizes = {"hidden_size": 24, "intermediate_size": 31, "num_hidden_layers": 2, "num_attention_heads": 3}

    def make(name, *, seed=0, **changes):
        torch.manual_seed(seed)
        kind = getattr(transformers, name)
        return kind(kind.config_class(**{**sizes, **changes})).eval()

    return make


@pytest.fixture(scope="session")
def model():
    """A small image classifier with random weights: a grid of 5x7 patches, 11 labels; read only."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=29,
        image_size=(40, 56), patch_size=8, num_labels=11,
    )  # fmt: skip
    return ViTForImageClassification(config).eval()


@pytest.fixture(scope="session")
def pixels():
    """Two pictures for it."""
    import torch

    return torch.rand(2, 3, 40, 56, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def saliency():
    """The embedded vision model, loaded once for all tests; read only."""
    from attnlib import load_model

    return load_model("dinov2-small-saliency")


@pytest.fixture(scope="session")
def poster():
    """The sample poster and its named parts: reading its words takes seconds, so it is done once."""
    from attnlib import find_regions, load_picture

    picture = load_picture("sample:poster")
    return picture, find_regions(picture)


def find_chromium() -> str | None:
    """Path of a Chromium, from ATTNLIB_CHROMIUM or where Debian puts it."""
    wanted = (os.environ.get("ATTNLIB_CHROMIUM"), "chromium", "/usr/bin/chromium", "google-chrome")
    return next((found for name in wanted if name and (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def chromium():
    """A running Chromium; skips where there is none, unless ATTNLIB_REQUIRE_BROWSER=1 forbids the skip.

    Its driver keeps an event loop running in this thread: it must not outlive its module, for other tests
    run loops of their own.
    """
    path = find_chromium()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        path = None
    if path is None:
        words = "no Chromium (apt-get install chromium) or no playwright here"
        if os.environ.get("ATTNLIB_REQUIRE_BROWSER") == "1":
            pytest.fail(words)
        pytest.skip(words)
    with sync_playwright() as playwright:
        args = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=path, args=args)
        yield browser
        browser.close()
