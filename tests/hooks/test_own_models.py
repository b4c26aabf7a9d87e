"""Models as people write them: what is seen of them, and what is said where it cannot be."""

from __future__ import annotations

import torch
from torch import nn

from attnlib import capturing


def test_kinds_of_none_are_all_kinds() -> None:
    torch.manual_seed(0)
    model = nn.MultiheadAttention(12, 3, batch_first=True).eval()
    states = torch.randn(2, 5, 12)
    with capturing(model, kinds=None) as record:
        _, expected = model(states, states, states, need_weights=True, average_attn_weights=False)
    torch.testing.assert_close(record.layers[0].weights(), expected)
