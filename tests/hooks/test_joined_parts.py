"""Attention in several parts, over several sets of tokens or several items in one row: one matrix, in place."""

import pytest
import torch
from torch import nn

SMALL = {
    "d_model": 24,
    "num_global_tokens": 3,
    "block_size": 4,
    "vocab_size": 61,
    "max_position_embeddings": 64,
}
LAYERS = {
    f"{part}_{name}": value
    for part in ("encoder", "decoder")
    for name, value in (("layers", 2), ("attention_heads", 3), ("ffn_dim", 31))
}


@pytest.fixture(scope="module")
def library():
    """The transformers library, imported after the shape checker."""
    import transformers

    return transformers


def words(length, batch=2):
    return torch.randint(5, 60, (batch, length), generator=torch.Generator().manual_seed(1))


def summariser(library):
    torch.manual_seed(0)
    return library.PegasusXModel(library.PegasusXConfig(**SMALL, **LAYERS)).eval()


@pytest.mark.parametrize("length", [12, 11])
def test_global_tokens_beside_blocks_of_a_text_make_one_matrix(library, length):
    from attnlib import capture

    model, ids = summariser(library), words(length)
    mask = torch.ones_like(ids)
    mask[1, -2:] = 0
    given = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": words(5)}
    record = capture(model, given).select(stream="encoder")
    with torch.no_grad():
        theirs = model(**given, output_attentions=True).encoder_attentions
    assert len(record.layers) == len(theirs) == 2
    for layer, one, shift in zip(record.layers, theirs, (0, 2), strict=True):
        mine = layer.weights()
        assert mine.shape == (2, 3, 3 + length, 3 + length)
        assert layer.kind == "self"
        torch.testing.assert_close(mine.sum(-1), torch.ones(2, 3, 3 + length))
        whole = one["global"]
        torch.testing.assert_close(mine[:, :, :3, :3], whole[..., :3], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(
            mine[:, :, :3, 3:], whole[..., 3 + shift : 3 + shift + length], rtol=1e-4, atol=1e-6
        )
        for place in range(length):
            block, row = divmod(place + shift, 4)
            local = one["local"][:, :, block, row]
            torch.testing.assert_close(mine[:, :, 3 + place, :3], local[..., :3], rtol=1e-4, atol=1e-6)
            for column in range(4):
                other = block * 4 + column - shift
                if 0 <= other < length:
                    torch.testing.assert_close(
                        mine[:, :, 3 + place, 3 + other], local[..., 3 + column], rtol=1e-4, atol=1e-6
                    )


def test_gradients_of_global_tokens_and_blocks_are_those_of_one_matrix(library):
    from attnlib import capture

    model, ids = summariser(library), words(12)
    given = {"input_ids": ids, "decoder_input_ids": words(5)}
    record = capture(model, given, target=lambda output: output.last_hidden_state.pow(2).sum((1, 2)))
    mine = record.select(stream="encoder").layers[0].gradients()
    output = model(**given, output_attentions=True)
    first = output.encoder_attentions[0]
    score = output.last_hidden_state.pow(2).sum()
    whole, local = torch.autograd.grad(score, [first["global"], first["local"]])
    torch.testing.assert_close(mine[:, :, :3], whole, rtol=1e-4, atol=1e-6)
    for place in range(12):
        block, row = divmod(place, 4)
        columns = [0, 1, 2, *range(3 + 4 * block, 7 + 4 * block)]
        torch.testing.assert_close(
            mine[:, :, 3 + place][..., columns], local[:, :, block, row], rtol=1e-4, atol=1e-6
        )


def test_pictures_packed_into_one_row_are_items_of_their_own(library):
    from attnlib import capture

    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 31}
    model = library.PixtralVisionModel(
        library.PixtralVisionConfig(**sizes, image_size=24, patch_size=8)
    ).eval()
    given = {"pixel_values": torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(2))}
    record = capture(model, given)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        theirs = model(**given, output_attentions=True).attentions
    for layer, one in zip(record.layers, theirs, strict=True):
        assert one.shape == (1, 3, 18, 18)
        mine = layer.weights()
        assert mine.shape == (2, 3, 9, 9)
        torch.testing.assert_close(mine[0], one[0, :, :9, :9], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(mine[1], one[0, :, 9:, 9:], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(layer.window_weights(), one, rtol=1e-4, atol=1e-6)
        assert not layer.notes
    assert record.layout.grid == (3, 3)


def test_steps_of_a_series_are_tokens_of_their_own(library):
    from attnlib import capture

    torch.manual_seed(0)
    sizes = {"d_model": 12, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 3}
    sizes |= {"decoder_attention_heads": 3, "encoder_ffn_dim": 17, "decoder_ffn_dim": 17}
    config = library.TimeSeriesTransformerConfig(
        **sizes, prediction_length=3, context_length=7, lags_sequence=[1, 2], num_time_features=1
    )
    model = library.TimeSeriesTransformerModel(config).eval()
    noise = torch.Generator().manual_seed(2)
    given = {
        "past_values": torch.randn(2, 9, generator=noise),
        "past_time_features": torch.randn(2, 9, 1, generator=noise),
        "past_observed_mask": torch.ones(2, 9),
        "future_values": torch.randn(2, 3, generator=noise),
        "future_time_features": torch.randn(2, 3, 1, generator=noise),
    }
    record = capture(model, given)
    with torch.no_grad():
        theirs = model(**given, output_attentions=True).encoder_attentions
    own = record.select(stream="encoder").layers
    assert len(own) == 2
    for layer, one in zip(own, theirs, strict=True):
        torch.testing.assert_close(layer.weights(), one, rtol=1e-4, atol=1e-6)
    assert record.gaps == ()


def test_global_tokens_of_a_text_replace_the_rows_of_their_windows(library):
    from attnlib import capture

    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 31}
    config = library.LongformerConfig(
        **sizes, vocab_size=61, max_position_embeddings=64, attention_window=[4, 4], pad_token_id=1
    )
    model = library.LongformerModel(config).eval()
    everywhere = torch.zeros(2, 16, dtype=torch.long)
    everywhere[:, 0], everywhere[0, 7] = 1, 1  # two global tokens in the first text, one in the second
    given = {"input_ids": words(16), "attention_mask": torch.ones(2, 16), "global_attention_mask": everywhere}
    record = capture(model, given)
    with torch.no_grad():
        output = model(**given, output_attentions=True)
    for layer, banded, whole in zip(record.layers, output.attentions, output.global_attentions, strict=True):
        mine = layer.weights()
        assert mine.shape == (2, 3, 16, 16)
        torch.testing.assert_close(mine.sum(-1), torch.ones(2, 3, 16), rtol=1e-4, atol=1e-5)
        for item, seeing in ((0, [0, 7]), (1, [0])):
            for rank, place in enumerate(seeing):
                torch.testing.assert_close(
                    mine[item, :, place], whole[item, :, :, rank], rtol=1e-4, atol=1e-6
                )
            for row in {*range(16)} - {*seeing}:
                theirs = banded[item, :, row]  # [head, global tokens and offsets]
                for rank, place in enumerate(seeing):
                    torch.testing.assert_close(
                        mine[item, :, row, place], theirs[:, rank], rtol=1e-4, atol=1e-6
                    )
                for offset in range(-2, 3):
                    if 0 <= row + offset < 16 and row + offset not in seeing:
                        torch.testing.assert_close(
                            mine[item, :, row, row + offset], theirs[:, 2 + 2 + offset], rtol=1e-4, atol=1e-6
                        )


def test_blocks_with_random_keys_are_one_matrix_that_gives_the_real_output(library):
    from attnlib import capture

    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 31}
    config = library.BigBirdConfig(
        **sizes, vocab_size=61, max_position_embeddings=64, block_size=4, num_random_blocks=1
    )
    model = library.BigBirdModel(config, add_pooling_layer=False).eval()
    given = {"input_ids": words(44)}
    record = capture(model, given)
    (layer,) = record.layers
    weights, values = layer.weights(), layer.values()
    assert weights.shape == (2, 3, 44, 44)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 44), rtol=1e-4, atol=1e-5)
    found = {}
    inner = model.encoder.layer[0].attention.self
    handle = inner.register_forward_hook(lambda _, __, output: found.update(states=output[0]))
    with torch.no_grad():
        model(**given)
    handle.remove()
    mixed = (weights @ values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(mixed, found["states"], rtol=1e-4, atol=1e-5)


def test_local_blocks_of_a_text_see_their_neighbours(library):
    from attnlib import capture

    torch.manual_seed(0)
    sizes = {"d_model": 24, "d_kv": 8, "d_ff": 31, "num_layers": 2, "num_heads": 3, "local_radius": 3}
    config = library.LongT5Config(**sizes, vocab_size=61, dropout_rate=0.0)
    model = library.LongT5EncoderModel(config).eval()
    given = {"input_ids": words(14)}
    record = capture(model, given)
    with torch.no_grad():
        theirs = model(**given, output_attentions=True).attentions
    for layer, one in zip(record.layers, theirs, strict=True):
        mine = layer.weights()
        assert mine.shape == (2, 3, 14, 14)
        for row in range(14):
            block, place = divmod(row, 4)
            for column in range(12):
                other = (block - 1) * 4 + column
                if 0 <= other < 14:
                    torch.testing.assert_close(
                        mine[:, :, row, other], one[:, block, :, place, column], rtol=1e-4, atol=1e-6
                    )


@pytest.mark.parametrize("way", ["quotient", "log-sum", "log-softmax"])
def test_a_softmax_that_is_written_out_is_seen(way):
    from attnlib import capture

    class Written(nn.Module):
        """Attention whose softmax is written by hand."""

        def __init__(self):
            super().__init__()
            self.inward = nn.Linear(12, 36)

        def forward(self, x):
            query, key, value = self.inward(x).view(*x.shape[:2], 3, 3, 4).permute(2, 0, 3, 1, 4)
            scores = query @ key.transpose(-1, -2) / 2
            if way == "quotient":
                raised = torch.exp(scores - scores.amax(-1, keepdim=True))
                weights = raised / raised.sum(-1, keepdim=True)
            elif way == "log-sum":
                weights = torch.exp(scores - torch.logsumexp(scores, dim=-1, keepdim=True))
            else:
                weights = nn.functional.log_softmax(scores, -1).exp()
            self.weights = weights.detach()
            return (weights @ value).transpose(1, 2).flatten(2)

    torch.manual_seed(0)
    model = Written().eval()
    (layer,) = capture(model, torch.randn(2, 7, 12)).layers
    assert layer.kind == "self"
    torch.testing.assert_close(layer.weights(), model.weights)


class Pairs(nn.Module):
    """Two pictures for each item, whose points look at their own picture and then at the other."""

    def __init__(self):
        super().__init__()
        self.inward = nn.Linear(12, 36)

    def forward(self, pixel_values):
        batch, two = pixel_values.shape[:2]
        points = pixel_values.flatten(0, 1).flatten(2).sort(-1).values[..., :12]  # no token of the picture
        query, key, value = self.inward(points).view(batch * two, -1, 3, 3, 4).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-1, -2) / 2).softmax(-1)
        self.weights = weights.detach()
        return (weights @ value).transpose(1, 2).flatten(2)


def test_pictures_of_a_pair_are_items_of_their_own():
    from attnlib import capture

    torch.manual_seed(0)
    model = Pairs().eval()
    (layer,) = capture(model, {"pixel_values": torch.randn(3, 2, 5, 4, 4)}).layers
    torch.testing.assert_close(layer.weights(), model.weights)
    assert layer.batch_size == 6


def test_padding_of_a_text_in_windows_asks_for_nothing(library):
    from attnlib import capture, explain

    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 31}
    config = library.LongformerConfig(
        **sizes, vocab_size=61, max_position_embeddings=64, attention_window=[4, 4], pad_token_id=1
    )
    model = library.LongformerForSequenceClassification(config).eval()  # its first token is global
    mask = torch.ones(2, 14, dtype=torch.long)
    mask[1, -5:] = 0
    record = capture(model, {"input_ids": words(14), "attention_mask": mask})
    for layer in record.layers:
        sums = layer.weights().sum(-1)
        torch.testing.assert_close(sums, mask[:, None].expand(2, 3, 14).float(), rtol=1e-4, atol=1e-5)
        assert any("fully masked" in note for note in layer.notes)
    scores = explain(record, "rollout", query=0).scores
    assert scores[1, -5:].abs().max() == 0


class Scattered(nn.Module):
    """Attention between the patches that stand at the same place of their 2x2 squares, channels in front."""

    def __init__(self):
        super().__init__()
        self.patches, self.inward = nn.Conv2d(3, 12, 4, 4), nn.Linear(12, 36)

    def forward(self, pixel_values):
        maps = self.patches(pixel_values)
        batch, channels, height, width = maps.shape
        squares = maps.reshape(batch * channels * height // 2, 2, width // 2, 2).transpose(1, 2)
        squares = squares.reshape(batch, channels, height * width // 4, 4).transpose(1, 3)
        states = squares.reshape(batch * 4, height * width // 4, channels)
        query, key, value = self.inward(states).view(*states.shape[:2], 3, 3, 4).permute(2, 0, 3, 1, 4)
        return ((query @ key.transpose(-1, -2)).softmax(-1) @ value).transpose(1, 2).flatten(2)


def test_patches_that_were_scattered_with_their_channels_in_front_are_put_back():
    from attnlib import capture

    torch.manual_seed(0)
    pixels = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(2))
    (layer,) = capture(Scattered().eval(), {"pixel_values": pixels}).layers
    weights = layer.weights()
    assert weights.shape == (2, 3, 24, 24)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 24))
    rows, columns = torch.arange(24) // 6, torch.arange(24) % 6
    apart = (rows[:, None] % 2 != rows % 2) | (columns[:, None] % 2 != columns % 2)
    assert weights[..., apart].max() == 0
