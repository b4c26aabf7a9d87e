"""LeGrad where the model ends in an attention pooler, which then reads the tokens of every layer."""

import pytest
import torch
from torch.nn import functional


@pytest.fixture(scope="module")
def siglip(tiny):
    model = tiny("SiglipVisionModel", seed=5, num_hidden_layers=3, image_size=12, patch_size=4)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    generator = torch.Generator().manual_seed(1)
    return model, torch.rand(2, 3, 12, 12, generator=generator), torch.randn(2, 24, generator=generator)


@pytest.fixture(scope="module")
def by_hand(siglip):
    """The positive gradient at the pooler's row, mean over heads, one map per layer: [layer, batch, patch]."""
    model, pixels, text = siglip
    head = model.head
    inner = head.attention
    with torch.no_grad():
        states = model(pixel_values=pixels, output_hidden_states=True).hidden_states[1:]
    maps = []
    for tokens in states:
        read = model.post_layernorm(tokens)
        weights, biases = inner.in_proj_weight.chunk(3), inner.in_proj_bias.chunk(3)
        query, key, value = (
            functional.linear(one, weight, bias).unflatten(-1, (3, 8)).transpose(1, 2)
            for one, weight, bias in zip(
                (head.probe.expand(2, -1, -1), read, read), weights, biases, strict=True
            )
        )
        row = ((query @ key.transpose(-1, -2)) / 8**0.5).softmax(dim=-1).detach().requires_grad_()
        mixed = inner.out_proj((row @ value).transpose(1, 2).flatten(2))
        pooled = (mixed + head.mlp(head.layernorm(mixed)))[:, 0]
        (slope,) = torch.autograd.grad((pooled * text).sum(), row)
        maps.append(slope.clamp(min=0).mean(dim=1)[:, 0])
    return torch.stack(maps)


@pytest.fixture(scope="module")
def record(siglip):
    """The pooler reads the last layer in the model, the others afterwards."""
    from attnlib import capturing

    model, pixels, text = siglip
    with capturing(model, gradients=True) as record:
        output = model(pixel_values=pixels, output_hidden_states=True)
        earlier = [model.head(model.post_layernorm(one)) for one in output.hidden_states[1:-1]]
    record.differentiate(sum((one * text).sum() for one in [output.pooler_output, *earlier]))
    return record


def test_through_the_pooler_it_is_the_mean_over_the_layers_it_read(record, by_hand):
    from attnlib import explain

    found = explain(record, "legrad", through="pooler")
    torch.testing.assert_close(found.scores, by_hand.mean(dim=0), rtol=1e-4, atol=1e-7)
    assert found.heatmap().shape == (2, 3, 3)
    assert "3 calls of the pooler" in found.notes[0]
    last, first = (explain(record, "legrad", through="pooler", layers=one).scores for one in (3, 4))
    torch.testing.assert_close(last, by_hand[2], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(first, by_hand[0], rtol=1e-4, atol=1e-7)


def test_an_ordinary_capture_has_the_last_layer_only_and_says_so(siglip, by_hand):
    from attnlib import capture, explain

    model, pixels, text = siglip
    plain = capture(model, {"pixel_values": pixels}, target=lambda o: (o.pooler_output * text).sum(dim=-1))
    found = explain(plain, "legrad", through="pooler")
    torch.testing.assert_close(found.scores, by_hand[2], rtol=1e-4, atol=1e-7)
    assert found.notes[0] == "of one layer only"
    assert any("through='pooler'" in note for note in explain(plain, "legrad").notes)


def test_each_layers_own_score_needs_none_for_the_pooler(siglip):
    from attnlib import capture, explain
    from attnlib.methods import layer_scores

    model, pixels, text = siglip
    inputs = {"pixel_values": pixels, "output_hidden_states": True}
    target = layer_scores(lambda tokens: (model.head(model.post_layernorm(tokens)) * text).sum(dim=-1))
    found = explain(capture(model, inputs, target=target), "legrad")
    assert not any("final score" in note for note in found.notes)
    assert found.scores.gt(0).all()


def test_a_model_without_a_pooler_is_refused(tiny):
    from attnlib import capture, explain
    from attnlib.errors import InputError

    model = tiny("ViTForImageClassification", image_size=12, patch_size=4)
    with pytest.raises(InputError, match="pooler"):
        explain(
            capture(model, {"pixel_values": torch.rand(1, 3, 12, 12)}, target=0), "legrad", through="pooler"
        )
