"""Fixtures shared by all tests. attnlib is imported inside fixtures, so that the shape checker comes first."""

import importlib.util
import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parents[1]


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
