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
