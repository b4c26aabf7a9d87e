"""A small map over a small picture, sizes prime and unequal."""

import numpy as np
import pytest
import torch


@pytest.fixture
def picture():
    """73 x 41 pixels of noise."""
    from attnlib import load_picture

    return load_picture(np.random.default_rng(3).integers(0, 255, (73, 41, 3), dtype=np.uint8))


@pytest.fixture
def relevance():
    """Two items, one class token and a grid of 7 x 5, with one strong patch at row 2, column 3."""
    from attnlib import Relevance, TokenLayout

    torch.manual_seed(11)
    scores = torch.rand(2, 36, dtype=torch.float64)
    scores[0, 1 + 2 * 5 + 3] = 9.0
    return Relevance(scores, TokenLayout((7, 5), 14, 1, 0), method="rollout", query="class")
