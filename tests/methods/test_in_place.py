"""Models that write ``x += ...`` where others write ``x = x + ...`` get the same maps."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close


class Block(nn.Module):
    def __init__(self, in_place):
        super().__init__()
        self.first, self.second = nn.LayerNorm(12), nn.LayerNorm(12)
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)
        self.forward_part = nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 12))
        self.in_place = in_place

    def attention(self, x):
        query, key, value = self.qkv(x).unflatten(-1, (3, 3, 4)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def forward(self, x):
        if self.in_place:
            x += self.attention(self.first(x))
            x += self.forward_part(self.second(x))
            return x
        x = x + self.attention(self.first(x))
        return x + self.forward_part(self.second(x))


class Small(nn.Module):
    def __init__(self, in_place):
        super().__init__()
        torch.manual_seed(7)
        self.patches = nn.Conv2d(3, 12, 4, 4)
        self.blocks = nn.ModuleList([Block(in_place) for _ in range(3)])
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 5)

    def forward(self, pixel_values):
        x = self.patches(pixel_values).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(dim=1))


@pytest.fixture(scope="module")
def records():
    from attnlib import capture

    pixels = torch.rand(2, 3, 12, 20, generator=torch.Generator().manual_seed(3)).double()
    return [
        capture(Small(in_place).double().eval(), pixels, target=[1, 4], internals=True)
        for in_place in (False, True)
    ]


METHODS = ("generic_relevance", "gradient_rollout", "legrad", "globenc", "alti", "decompx", "attnlrp", "cp_lrp",
           "transformer_attribution", "gradient_x_input", "grad_cam")  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_changes_tensors_in_place_gets_the_same_map(records, method):
    from attnlib import explain

    if method in ("gradient_x_input", "grad_cam"):
        pytest.importorskip("captum")
        pytest.importorskip("pytorch_grad_cam")
    query = "mean" if method in ("generic_relevance", "gradient_rollout", "globenc", "alti") else None
    plain, in_place = (explain(record, method, query=query).scores for record in records)
    assert_close(in_place, plain, rtol=1e-6, atol=1e-10)
    assert float(plain.abs().sum()) > 0


def test_what_is_changed_after_the_attention_does_not_change_its_gradient():
    """The gradient kept is that at the call's own output, whatever the model does to the tensor later."""
    from attnlib import capture

    class Scaled(nn.Module):
        def __init__(self, in_place):
            super().__init__()
            torch.manual_seed(5)
            self.qkv, self.head, self.in_place = nn.Linear(6, 18), nn.Linear(6, 3), in_place

        def forward(self, x):
            query, key, value = self.qkv(x).unflatten(-1, (3, 2, 3)).permute(2, 0, 3, 1, 4)
            mixed = nn.functional.scaled_dot_product_attention(query, key, value)
            if self.in_place:
                mixed *= 3.0
            else:
                mixed = mixed * 3.0
            return self.head(mixed.transpose(1, 2).flatten(2).sum(dim=1))

    x = torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(1))
    plain, changed = (
        capture(Scaled(in_place).eval(), x, target=1).layers[0].gradients() for in_place in (False, True)
    )
    assert_close(changed, plain)
