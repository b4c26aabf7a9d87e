"""Calls that do not read one another: heads of one layer, branches, towers and passes are never multiplied."""

import pytest
import torch
from torch import nn
from torch.nn import functional

WIDTH, HEADS, TOKENS = 12, 3, 7


class Head(nn.Module):
    """One head as a module of its own, as in many a first transformer."""

    def __init__(self, fused):
        super().__init__()
        self.key, self.query, self.value = (nn.Linear(WIDTH, WIDTH // HEADS, bias=False) for _ in range(3))
        self.register_buffer("tril", torch.tril(torch.ones(16, 16)))
        self.fused = fused

    def weights(self, x):
        scores = self.query(x) @ self.key(x).transpose(-2, -1) * (WIDTH // HEADS) ** -0.5
        return scores.masked_fill(self.tril[: x.shape[1], : x.shape[1]] == 0, -torch.inf).softmax(-1)

    def forward(self, x):
        if self.fused:
            return functional.scaled_dot_product_attention(
                self.query(x), self.key(x), self.value(x), is_causal=True
            )
        return self.weights(x) @ self.value(x)


class ManyHeads(nn.Module):
    def __init__(self, fused):
        super().__init__()
        self.heads = nn.ModuleList(Head(fused) for _ in range(HEADS))
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.proj(torch.cat([head(x) for head in self.heads], dim=-1))


class Block(nn.Module):
    def __init__(self, fused):
        super().__init__()
        self.sa, self.norm = ManyHeads(fused), nn.LayerNorm(WIDTH)

    def forward(self, x):
        return x + self.sa(self.norm(x))


class Writer(nn.Module):
    def __init__(self, fused):
        super().__init__()
        self.embed, self.head = nn.Embedding(50, WIDTH), nn.Linear(WIDTH, 50)
        self.blocks = nn.Sequential(Block(fused), Block(fused))

    def forward(self, ids):
        return self.head(self.blocks(self.embed(ids)))

    def expected(self, ids):
        """Return the weights [batch, head, query, key] of each layer, computed by hand."""
        x, found = self.embed(ids), []
        for block in self.blocks:
            y = block.norm(x)
            found.append(torch.stack([head.weights(y) for head in block.sa.heads], 1))
            x = block(x)
        return found


class Attention(nn.Module):
    def __init__(self, way="plain"):
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.way = way

    def forward(self, x):
        attend = functional.scaled_dot_product_attention
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        if self.way == "head by head":
            mixed = torch.cat([attend(*(t[:, i : i + 1] for t in (q, k, v))) for i in range(HEADS)], 1)
        elif self.way == "rows in chunks":
            mixed = torch.cat([attend(rows, k, v) for rows in q.split(3, dim=2)], 2)
        elif self.way == "difference":
            mixed = attend(q, k, v) - 0.5 * attend(k, q, v)
        else:
            mixed = attend(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Tower(nn.Module):
    def __init__(self, *ways):
        super().__init__()
        self.attentions = nn.ModuleList(Attention(way) for way in ways)
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x):
        for attention in self.attentions:
            x = x + attention(x)
        return self.head(x.mean(1))


class Parallel(Tower):
    def forward(self, x):
        return self.head((x + sum(attention(x) for attention in self.attentions)).mean(1))


class Twins(nn.Module):
    def __init__(self):
        super().__init__()
        self.tower = Tower("plain", "plain")

    def forward(self, one, other):
        return self.tower(one) - self.tower(other)


def states(seed=0):
    return torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))


def ids():
    return torch.randint(0, 50, (2, TOKENS), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("fused", [True, False])
def test_heads_that_are_modules_of_their_own_are_the_heads_of_one_layer(fused):
    from attnlib import capture, explain

    torch.manual_seed(0)
    model = Writer(fused).eval()
    record = capture(model, ids(), target=lambda out: out[:, -1, 3])
    expected = model.expected(ids())
    assert [(one.name, one.index, one.num_heads) for one in record.layers] == [
        ("blocks.0.sa.heads", 0, HEADS),
        ("blocks.1.sa.heads", 1, HEADS),
    ]
    assert record.gaps == ()
    rolled = torch.eye(TOKENS)
    for layer, weights in zip(record.layers, expected, strict=True):
        torch.testing.assert_close(layer.weights(), weights, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(layer.weights(heads=[2, 0]), weights[:, [2, 0]], rtol=1e-5, atol=1e-6)
        rolled = (weights.mean(1) + torch.eye(TOKENS)) / 2 @ rolled
    torch.testing.assert_close(explain(record, "rollout").scores, rolled[:, -1], rtol=1e-4, atol=1e-6)
    assert record.layers[0].gradients(heads=1, queries=[4]).shape == (2, 1, 1, TOKENS)
    assert record.layers[0].gradients().abs().sum() > 0


def test_heads_of_their_own_can_be_limited_by_layer_and_row_but_not_by_head():
    from attnlib import capture
    from attnlib.errors import InputError

    torch.manual_seed(0)
    model = Writer(fused=True).eval()
    whole = capture(model, ids())
    last = capture(model, ids(), layers=-1, queries=[2, 5])
    assert [one.index for one in last.layers] == [1]
    torch.testing.assert_close(
        last.layers[0].weights(queries=[5]), whole.layers[1].weights(queries=[5]), rtol=0, atol=0
    )
    with pytest.raises(InputError, match="each head by itself"):
        capture(model, ids(), heads=[0])


@pytest.mark.parametrize("way", ["head by head", "rows in chunks"])
def test_an_attention_in_parts_is_one_layer(way):
    from attnlib import capture, explain

    torch.manual_seed(0)
    parts, plain = Tower(way, "plain").eval(), Tower("plain", "plain").eval()
    plain.load_state_dict(parts.state_dict())
    record, whole = capture(parts, states()), capture(plain, states())
    assert [one.kind for one in record.layers] == ["self", "self"]
    for one, other in zip(record.layers, whole.layers, strict=True):
        torch.testing.assert_close(one.weights(), other.weights(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        explain(record, "rollout").scores, explain(whole, "rollout").scores, rtol=1e-5, atol=1e-6
    )


def test_parallel_branches_are_heads_of_one_layer():
    from attnlib import capture

    torch.manual_seed(0)
    record = capture(Parallel("plain", "plain").eval(), states())
    assert [(one.name, one.num_heads) for one in record.layers] == [("attentions", 2 * HEADS)]


@pytest.mark.parametrize(
    ("model", "given", "place", "words"),
    [
        (Twins, 2, 1.5, "does not read what tower.attentions.1 computed"),
        (lambda: Tower("plain", "difference"), 1, 1.5, "calls that do not read one another"),
    ],
)
def test_calls_that_do_not_read_one_another_are_never_multiplied(model, given, place, words):
    from attnlib import capture, explain
    from attnlib.errors import NeedsError

    torch.manual_seed(0)
    record = capture(model().eval(), tuple(states(seed) for seed in range(given)))
    assert [gap.place for gap in record.gaps] == [place]
    with pytest.raises(NeedsError, match=words):
        explain(record, "rollout")
    assert explain(record, "rollout", layers=[0, 1]).scores.shape == (2, TOKENS)


def test_two_passes_in_one_capture_are_never_multiplied():
    from attnlib import capture, capturing, explain
    from attnlib.errors import NeedsError

    torch.manual_seed(0)
    model = Tower("plain", "plain").eval()
    with capturing(model) as record:
        model(states(0))
        model(states(1))
    with pytest.raises(NeedsError, match="another forward pass"):
        explain(record, "rollout")
    alone = explain(capture(model, states(1)), "rollout").scores
    torch.testing.assert_close(explain(record, "rollout", layers=[2, 3]).scores, alone, rtol=0, atol=0)
