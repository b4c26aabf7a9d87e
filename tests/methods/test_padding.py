"""A text in a padded batch gets what it gets alone, whichever side is padded: for every method of the registry."""

import itertools

import pytest
import torch
from torch import nn

LENGTHS = (7, 5, 3)
TARGETS = (1, 0, 2)
NO_TEXT = {"centre", "edges"}
NO_TWICE = {"random"}  # each place has its own number, and padding moves the places
AS_PUBLISHED = (
    "transformer_attribution",
    {"variant": "Transformer-Explainability-BERT"},
)  # the card says how
MORE = [
    ("raw", {"query": "mean"}),
    ("rollout", {"discard_ratio": 0.4, "head_fusion": "max"}),
    ("rollout", {"discard_ratio": 0.4, "variant": "vit-explain"}),
    ("rollout", {"discard_ratio": 0.4, "query": "mean"}),
    ("gradient_rollout", {"discard_ratio": 0.3}),
    ("attention_grad_cam", {"gradient_mean": "row"}),
    ("attention_grad_cam", {"layers": 0}),
    ("legrad", {"layers": [0]}),
    ("flow", {"solver": "bound"}),
    ("flow", {"solver": "cut"}),
    ("decompx", {"of": "token"}),
]


def calls():
    from attnlib.methods import METHODS

    cards = [card for name, card in METHODS.items() if name not in NO_TEXT | NO_TWICE]
    plain = [(card.name, {}) for card in cards]
    variants = [(card.name, {"variant": one}) for card in cards for one in card.variants]
    return plain + [one for one in variants if one != AS_PUBLISHED] + MORE


class Sentence(nn.Module):
    """An encoder, and a head that reads the mean of the real tokens."""

    def __init__(self):
        from transformers import BertConfig, BertModel

        super().__init__()
        torch.manual_seed(3)
        sizes = {"hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 10}
        self.encoder = BertModel(BertConfig(**sizes, vocab_size=50), add_pooling_layer=False)
        self.head = nn.Linear(12, 4)

    def forward(self, input_ids, attention_mask, position_ids):
        states = self.encoder(input_ids, attention_mask, position_ids=position_ids).last_hidden_state
        share = attention_mask.to(states) / attention_mask.sum(dim=-1, keepdim=True)
        return self.head((states * share[..., None]).sum(dim=1))


def captured(model, ids, side, targets):
    """Capture texts as one batch, padded on a side."""
    from attnlib import capture

    longest = max(map(len, ids))
    rows, masks, places = [], [], []
    for one in ids:
        room = longest - len(one)
        ends = (room, 0) if side == "left" else (0, room)
        for made, value in ((rows, one), (masks, torch.ones_like(one)), (places, torch.arange(len(one)))):
            made.append(nn.functional.pad(value, ends))
    inputs = {
        "input_ids": torch.stack(rows),
        "attention_mask": torch.stack(masks),
        "position_ids": torch.stack(places),
    }
    return capture(model, inputs, target=list(targets), internals=True)


@pytest.fixture(scope="module")
def texts():
    return [torch.randint(3, 48, (n,), generator=torch.Generator().manual_seed(n)) for n in LENGTHS]


@pytest.fixture(scope="module")
def records(texts):
    model = Sentence().double().eval()
    alone = [captured(model, [one], "right", [target]) for one, target in zip(texts, TARGETS, strict=True)]
    return {**{side: captured(model, texts, side, TARGETS) for side in ("left", "right")}, "alone": alone}


def ask(record, name, places, options):
    """Ask for the second real token of every item, where the method takes a query."""
    from attnlib import METHODS, explain
    from attnlib.errors import MissingPackageError

    if METHODS[name].takes_query or options.get("of") == "token":
        options = {"query": torch.tensor(places) + 1, **options}
    try:
        return explain(record, name, **options).scores
    except MissingPackageError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("name", "options"), calls(), ids=str)
def test_a_padded_text_gets_what_it_gets_alone_and_padding_nothing(records, side, name, options):
    starts = [max(LENGTHS) - length if side == "left" else 0 for length in LENGTHS]
    together = ask(records[side], name, starts, options)
    assert float(together.abs().sum()) > 0
    for item, (start, length) in enumerate(zip(starts, LENGTHS, strict=True)):
        alone = ask(records["alone"][item], name, [0], options)[0]
        real = torch.zeros(max(LENGTHS), dtype=torch.bool)
        real[start : start + length] = True
        scale = float(together[item].abs().max())
        torch.testing.assert_close(together[item, real], alone, rtol=1e-4, atol=1e-6 * scale)
        assert float(together[item, ~real].abs().sum()) <= 1e-4 * scale


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_source_text_of_a_translation_is_read_as_it_is_alone(side):
    """Two streams: the decoder's token gets the same relevance over the encoder's tokens."""
    from transformers import T5Config, T5ForConditionalGeneration

    from attnlib import capture, explain

    torch.manual_seed(4)
    config = T5Config(
        d_model=12, d_kv=6, d_ff=10, num_layers=2, num_heads=2, vocab_size=40, decoder_start_token_id=0
    )
    model = T5ForConditionalGeneration(config).double().eval()
    ids = [torch.randint(3, 38, (n,), generator=torch.Generator().manual_seed(n)) for n in LENGTHS]
    written = torch.tensor([[0, 7, 9, 11]] * 3)

    def asked(rows, masks, items):
        record = capture(
            model,
            {
                "input_ids": torch.stack(rows),
                "attention_mask": torch.stack(masks),
                "decoder_input_ids": written[items],
            },
            target=[[5, 6, 8][item] for item in items],
        )
        across = [
            explain(record, "generic_relevance", query=2, normalise=one).scores for one in (True, False)
        ]
        cross = record.select(stream="decoder", kind="cross")
        own = record.select(stream="encoder")
        return [*across, explain(cross, "raw", query=2, layers=-1).scores, explain(own, "legrad").scores]

    room = [max(LENGTHS) - n for n in LENGTHS]
    ends = [(n, 0) if side == "left" else (0, n) for n in room]
    padded = [nn.functional.pad(one, end) for one, end in zip(ids, ends, strict=True)]
    masks = [nn.functional.pad(torch.ones_like(one), end) for one, end in zip(ids, ends, strict=True)]
    together = asked(padded, masks, [0, 1, 2])
    for item, one in enumerate(ids):
        alone = asked([one], [torch.ones_like(one)], [item])
        for many, single in zip(together, alone, strict=True):
            torch.testing.assert_close(many[item, masks[item].bool()], single[0], rtol=1e-4, atol=1e-12)
            assert float(many[item, ~masks[item].bool()].abs().sum()) < 1e-12


def test_a_long_text_beside_it_does_not_change_how_the_flow_of_a_short_one_is_found(records, monkeypatch):
    from attnlib import explain
    from attnlib.methods import flow

    exact = explain(records["right"], "flow", query=0, solver="exact")
    monkeypatch.setattr(flow, "EXACT_WORK", 3 * 5**3)
    monkeypatch.setattr(flow, "CUT_WORK", 3 * 6**3)
    found = explain(records["right"], "flow", query=0)
    assert found.options["solver"] == ["bound", "exact", "exact"]
    torch.testing.assert_close(found.scores[1:], exact.scores[1:])
    assert (found.scores[0] >= exact.scores[0] - 1e-12).all()
    assert "upper bound" in " ".join(found.notes)


def test_what_is_discarded_is_counted_among_real_tokens():
    """int(0.5 x 3 x 3) = 4 entries of the three real tokens go, whatever stands in the padding."""
    from attnlib.methods.transitions import kept_entries

    matrix = torch.arange(1.0, 51.0).reshape(2, 5, 5)
    seen = torch.tensor([[False, True, True, True, False], [True] * 5])
    for protect, gone in ((False, 4), (True, 3)):
        found = kept_entries(matrix, 0.5, protect_first=protect, seen=seen)
        assert int((found[0] == 0).sum()) == gone
        assert int((found[0, 1:4, 1:4] == 0).sum()) == gone
        torch.testing.assert_close(found[1:], kept_entries(matrix[1:], 0.5, protect_first=protect))
    assert not any(itertools.chain.from_iterable((found[0, [0, 4]] == 0).tolist()))
