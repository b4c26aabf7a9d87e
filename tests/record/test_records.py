"""Records, relevances and layouts made by hand: what contradicts itself is refused, what is asked for is given."""

import pytest
import torch


def given(rows=5, columns=5):
    return torch.rand(2, 3, rows, columns, generator=torch.Generator().manual_seed(0)).softmax(-1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"seen": torch.ones(2, 6, dtype=torch.bool)},
        {"seen": torch.ones(2, 7)},
        {"identity": torch.zeros(1, 7)},
    ],
    ids=["tokens", "numbers", "items"],
)
def test_what_goes_with_scores_must_fit_them(wrong):
    from attnlib import Relevance, TokenLayout
    from attnlib.errors import InputError

    with pytest.raises(InputError, match=next(iter(wrong))):
        Relevance(torch.rand(2, 7), TokenLayout((2, 3), 8, 1, 0), **wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"grid": (3, 3), "tokens": ["a", "b"]},
        {"grid": None, "tokens": ["a", "b"], "spans": {"name": (1, 3)}},
        {"grid": None, "tokens": ["a", "b"], "spans": {"name": (1, 1)}},
    ],
    ids=["patches", "behind the end", "empty"],
)
def test_layouts_whose_numbers_contradict_one_another_are_refused(wrong):
    from attnlib import TokenLayout
    from attnlib.errors import InputError

    with pytest.raises(InputError, match="tokens"):
        TokenLayout(**wrong)


def test_rows_may_be_asked_for_backwards_and_twice():
    from attnlib import AttentionRecord

    layer = AttentionRecord.from_weights([given()]).layers[0]
    turned = layer.weights(queries=slice(None, None, -1))
    assert torch.equal(turned, given().flip(2))
    assert torch.equal(layer.weights(queries=[3, -2, 3], heads=[-1, 2]), given()[:, [2, 2]][:, :, [3, 3, 3]])


@pytest.mark.parametrize(
    ("readout", "words"),
    [
        ((0,), "class"),
        ((0, 1), "class, register 1"),
        ((0, *range(3, 38)), "class, every patch"),
        (tuple(range(38)), "every token"),
        ((0, 3, 4), "class, patch (0, 0), patch (0, 1)"),
        (
            tuple(range(3, 20)),
            "patch (0, 0), patch (0, 1), patch (0, 2), patch (0, 3), patch (0, 4), 12 more",
        ),
        ("patches", "patches"),
    ],
)
def test_what_the_head_reads_is_told_in_few_words(readout, words):
    from attnlib import TokenLayout

    layout = TokenLayout((5, 7), 8, ("class", "register 1", "register 2"), readout)
    assert str(layout).endswith(f"the head reads: {words}")


def test_a_layout_given_by_hand_leaves_the_query_of_a_pooling_head_alone():
    from transformers import SiglipVisionConfig, SiglipVisionModel

    from attnlib import TokenLayout, capture

    sizes = {"hidden_size": 24, "intermediate_size": 31, "num_hidden_layers": 1, "num_attention_heads": 3}
    model = SiglipVisionModel(SiglipVisionConfig(**sizes, image_size=24, patch_size=8)).eval()
    mine = TokenLayout((3, 3), 8, (), "patches")
    layers = capture(model, {"pixel_values": torch.rand(1, 3, 24, 24)}).with_layout(mine).layers
    assert [(one.kind, one.query_layout is mine, one.key_layout is mine) for one in layers] == [
        ("self", True, True),
        ("pool", False, True),
    ]


def test_the_stream_that_holds_the_picture_is_found():
    from attnlib import AttentionRecord, TokenLayout
    from attnlib.errors import InputError, LayoutError
    from attnlib.record import GivenCall

    words = GivenCall("decoder", torch.rand(1, 2, 3, 3))
    patches = GivenCall("encoder", torch.rand(1, 2, 7, 7))
    record = AttentionRecord.from_streams([words, patches], layouts={"encoder": TokenLayout((2, 3), 8, 1)})
    assert record.over_picture().streams == ("encoder",)
    assert record.select(stream="decoder").over_picture().streams == ("decoder",)
    with pytest.raises(LayoutError, match="encoder has a patch grid: select one"):
        AttentionRecord.from_streams([words, patches]).over_picture()
    with pytest.raises(
        InputError, match="no attention call has stream='vision'; this record holds decoder/self"
    ):
        record.select(stream="vision")
