"""Models as people write them: what is seen of them, and what is said where it cannot be."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from attnlib import capture, capturing


def test_kinds_of_none_are_all_kinds() -> None:
    torch.manual_seed(0)
    model = nn.MultiheadAttention(12, 3, batch_first=True).eval()
    states = torch.randn(2, 5, 12)
    with capturing(model, kinds=None) as record:
        _, expected = model(states, states, states, need_weights=True, average_attn_weights=False)
    torch.testing.assert_close(record.layers[0].weights(), expected)


class Fused(nn.Module):
    """Self-attention whose heads are as wide as asked for."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * heads * head_width)
        self.out = nn.Linear(heads * head_width, width)

    def forward(self, states: Tensor) -> Tensor:
        batch, tokens, _ = states.shape
        query, key, value = self.qkv(states).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        read = functional.scaled_dot_product_attention(query, key, value)
        return self.out(read.transpose(1, 2).reshape(batch, tokens, -1))


def test_as_many_heads_as_tokens_each_as_wide_as_the_states_are_heads_all_the_same() -> None:
    torch.manual_seed(0)
    model, states = Fused(7, 5, 7).eval(), torch.randn(2, 5, 7)
    weights = capture(model, states).layers[0].weights()
    query, key, _ = model.qkv(states).view(2, 5, 3, 5, 7).permute(2, 0, 3, 1, 4)
    torch.testing.assert_close(weights, (query @ key.transpose(-1, -2) / 7**0.5).softmax(-1))


def test_parameters_that_are_made_by_the_first_pass_are_no_obstacle() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.LazyLinear(12), Fused(12, 3, 5)).eval()
    record = capture(model, torch.randn(2, 5, 7), target=lambda output: output[:, 0].sum(-1))
    assert record.layers[0].gradients().shape == (2, 3, 5, 5)
