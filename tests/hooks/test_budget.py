"""Limits of a capture hold while it runs: layers, kinds, heads, rows and bytes."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional

LAYERS, HEADS, TOKENS, WIDTH = 5, 3, 11, 24


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x, causal):
        q, k, v = (one.unflatten(-1, (HEADS, -1)).transpose(1, 2) for one in self.qkv(x).chunk(3, -1))
        self.watch(q, k, v)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return x + self.out(mixed.transpose(1, 2).flatten(2))


class Tower(nn.Module):
    """A stack of blocks that knows how many projections are alive when each block starts."""

    def __init__(self, causal=False):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.causal, self.alive, self.most = causal, [], 0
        for block in self.blocks:
            block.watch = self.watch

    def watch(self, query, *_):
        self.alive = [one for one in self.alive if one() is not None]
        self.most = max(self.most, len(self.alive))
        self.alive.append(weakref.ref(query.untyped_storage()))

    def forward(self, hidden_states):
        for block in self.blocks:
            hidden_states = block(hidden_states, self.causal)
        return hidden_states


@pytest.fixture
def tower():
    torch.manual_seed(0)
    return Tower().eval()


@pytest.fixture
def states():
    return torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def translator():
    from transformers import BartConfig, BartModel

    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=29, d_model=WIDTH, encoder_layers=2, decoder_layers=3, encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS, encoder_ffn_dim=13, decoder_ffn_dim=17, max_position_embeddings=31,
    )  # fmt: skip
    given = torch.randint(3, 29, (2, 7)), torch.randint(3, 29, (2, 5))
    return BartModel(config).eval(), {"input_ids": given[0], "decoder_input_ids": given[1]}


@pytest.mark.parametrize(
    ("layers", "most"), [(None, LAYERS - 1), ([0], 2), ([3, 1], 3), (-1, 2), ([-2], 3), ([0, -1], 3)]
)
def test_layers_that_were_not_asked_for_are_let_go_while_the_model_runs(tower, states, layers, most):
    from attnlib import capture

    whole = capture(tower, states)
    tower.alive, tower.most = [], 0
    record = capture(tower, states, layers=layers)
    gc.collect()
    held = sum(one() is not None for one in tower.alive)
    assert tower.most <= most
    assert held == len(record.layers)
    for one in record.layers:
        torch.testing.assert_close(one.weights(), whole.layers[one.index].weights())


def test_the_limit_of_memory_counts_only_what_is_kept(tower, states):
    from attnlib import capture
    from attnlib.errors import BudgetError

    one_layer = 4 * 3 * states.numel()
    assert len(capture(tower, states, layers=2, max_memory=one_layer).layers) == 1
    assert len(capture(tower, states, layers=-1, max_memory=one_layer).layers) == 1
    assert len(capture(tower, states, max_memory=LAYERS * one_layer).layers) == LAYERS
    with pytest.raises(
        BudgetError, match=rf"{LAYERS * one_layer / 1e6:.1f} MB \({LAYERS} modules"
    ) as refused:
        capture(tower, states, max_memory=one_layer)
    assert "layers=" in str(refused.value)
    with pytest.raises(BudgetError):
        capture(tower, states, layers=[0, 1], max_memory=2 * one_layer - 1)


def test_a_mask_that_all_layers_share_counts_once():
    from attnlib import capture
    from attnlib.errors import BudgetError

    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 13, batch_first=True, dropout=0.0)
    model = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False).eval()
    states = torch.randn(1, 97, WIDTH)
    inputs = {"src": states, "mask": torch.zeros(97, 97)}
    rows = LAYERS * 3 * 4 * states.numel()
    assert len(capture(model, inputs, max_memory=rows + 2 * 4 * 97 * 97).layers) == LAYERS
    with pytest.raises(BudgetError):
        capture(model, inputs, max_memory=rows)


@pytest.mark.parametrize("kinds", [("cross",), ("self",), "cross"])
def test_kinds_are_limited_and_keep_their_indices(translator, kinds):
    from attnlib import capturing

    model, inputs = translator
    with torch.no_grad(), capturing(model) as whole:
        model(**inputs)
    with torch.no_grad(), capturing(model, kinds=kinds, layers=-1) as record:
        model(**inputs)
    for one in record.layers:
        own = [x for x in whole.layers if x.stream == one.stream and x.kind == one.kind]
        assert one.index == own[-1].index
        assert one.kind in kinds
        torch.testing.assert_close(one.weights(), own[-1].weights())
    with pytest.raises(Exception, match="no layer 17"), torch.no_grad(), capturing(model, layers=17):
        model(**inputs)


@pytest.mark.parametrize("causal", [False, True])
def test_rows_are_limited_at_the_capture_and_others_are_refused(states, causal):
    from attnlib import capture, capturing, explain
    from attnlib.errors import AttnlibError, InputError

    torch.manual_seed(3)
    tower = Tower(causal).eval()
    whole = capture(tower, states, target=lambda output: output[:, 2].sum(-1))
    part = capture(tower, states, target=lambda output: output[:, 2].sum(-1), queries=[2, -1], heads=[1])
    for one, all_of_it in zip(part.layers, whole.layers, strict=True):
        assert one.num_queries == TOKENS
        assert one.source.query.shape[1:3] == (1, 2)
        for row in (2, TOKENS - 1):
            torch.testing.assert_close(one.weights(queries=row), all_of_it.weights(heads=1, queries=row))
            torch.testing.assert_close(one.gradients(queries=row), all_of_it.gradients(heads=1, queries=row))
        with pytest.raises(InputError, match="not captured"):
            one.weights(queries=5)
    row = explain(part, "raw", query=2).scores
    torch.testing.assert_close(row, explain(capture(tower, states, heads=[1]), "raw", query=2).scores)
    with pytest.raises(AttnlibError, match=r"captured|queries"):
        explain(part, "rollout", query=2)
    assert part.layers[0].source.nbytes < whole.layers[0].source.nbytes / 2
    for wrong in ([], [TOKENS]):
        with pytest.raises(InputError), torch.no_grad(), capturing(tower, queries=wrong):
            tower(states)


def test_gradients_of_layers_that_were_let_go_are_not_held(tower, states):
    from attnlib import capturing

    for one in tower.parameters():
        one.requires_grad_(False)
    with capturing(tower, gradients=True, layers=[1]) as record:
        output = tower(states)
    record.differentiate(output[:, 0].norm())
    with capturing(tower, gradients=True) as whole:
        output = tower(states)
    whole.differentiate(output[:, 0].norm())
    torch.testing.assert_close(record.layers[0].gradients(), whole.layers[1].gradients())


def test_several_passes_count_on_and_the_last_layer_is_the_last_of_all(tower, states):
    from attnlib import capturing

    with torch.no_grad(), capturing(tower, layers=[-1, 0]) as record:
        tower(states)
        tower(2 * states)
    assert [one.index for one in record.layers] == [0, 2 * LAYERS - 1]


def test_what_internals_keep_counts_against_the_limit(tower, states):
    from attnlib import capture
    from attnlib.errors import BudgetError

    one = states.numel() * 4
    capture(tower, states, max_memory=(3 * LAYERS + 2) * one)
    with pytest.raises(BudgetError, match=r"internals=True would keep .* expected to need about"):
        capture(tower, states, internals=True, max_memory=(3 * LAYERS + 2) * one)
    assert len(capture(tower, states, internals=True, max_memory=20 * LAYERS * one).layers) > 0
