"""Gradients with respect to the weights equal autograd through eager attention."""

import pytest
import torch
from torch.overrides import TorchFunctionMode

LANGUAGE = {
    "vocab_size": 29,
    "hidden_size": 24,
    "num_attention_heads": 6,
    "intermediate_size": 13,
    "max_position_embeddings": 31,
}
PICTURE = {
    "hidden_size": 24,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "intermediate_size": 13,
    "patch_size": 8,
}
SPEECH = {
    "vocab_size": 29, "d_model": 24, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 3,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 13, "decoder_ffn_dim": 17, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
FAMILIES = {
    "siglip": ("SiglipVisionConfig", "SiglipVisionModel", dict(**PICTURE, image_size=40)),
    "beit": ("BeitConfig", "BeitForImageClassification", dict(**PICTURE, image_size=40, num_labels=11, use_relative_position_bias=True)),
    "swin": ("SwinConfig", "SwinForImageClassification", {"image_size": 32, "num_labels": 11, "patch_size": 4, "embed_dim": 12, "depths": [2], "num_heads": [3], "window_size": 4}),
    "mistral": ("MistralConfig", "MistralForCausalLM", dict(**LANGUAGE, num_hidden_layers=2, num_key_value_heads=2, sliding_window=5)),
    "bart": ("BartConfig", "BartForConditionalGeneration", dict(**SPEECH, max_position_embeddings=31)),
    "whisper": ("WhisperConfig", "WhisperForConditionalGeneration", dict(**SPEECH, max_source_positions=11, max_target_positions=31, num_mel_bins=7)),
}  # fmt: skip


class Softmaxes(TorchFunctionMode):
    """Keep what every softmax of an eager model returns, in the graph."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if func.__name__ == "softmax":
            self.found.append(output)
        return output


def build(name, dtype):
    import transformers

    config, kind, given = FAMILIES[name]
    torch.manual_seed(3)
    model = getattr(transformers, kind)(getattr(transformers, config)(**given)).to(dtype).eval()
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 29, (2, 7), generator=generator)
    if name == "whisper":
        inputs = {
            "input_features": torch.randn(2, 7, 22, generator=generator, dtype=dtype),
            "decoder_input_ids": ids,
        }
    elif name in ("mistral", "bart"):
        inputs = {"input_ids": ids, "attention_mask": torch.ones(2, 7).long()}
        inputs["attention_mask"][1, -2:] = (
            0  # in double precision eager attention makes NaN of rows that see nothing
        )
        if name == "bart":
            inputs["decoder_input_ids"] = ids[:, :5]
    else:
        size = given["image_size"]
        size = size if isinstance(size, tuple) else (size, size)
        inputs = {"pixel_values": torch.rand(2, 3, *size, generator=generator, dtype=dtype)}
    return model, inputs


def score(output):
    answer = output.logits if "logits" in output else output.pooler_output
    answer = answer[:, -1] if answer.dim() == 3 else answer
    return answer[:, 3] * 5 - answer[:, 7]


def raw(source):
    return source.pieces[0].source if hasattr(source, "pieces") else source


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_equal_autograd_through_eager_attention(name, frozen):
    from attnlib import capture

    model, inputs = build(name, torch.float64)
    for one in model.parameters():
        one.requires_grad_(not frozen)
    record = capture(model, inputs, target=score)
    assert all(one.grad is None for one in model.parameters())
    eager, inputs = build(name, torch.float64)
    eager.set_attn_implementation("eager")
    with Softmaxes() as softmaxes:
        output = eager(**inputs)
    slopes = torch.autograd.grad(score(output).sum(), softmaxes.found, allow_unused=True)
    slopes = [one for one in slopes if one is not None]
    assert len(slopes) >= sum(one.kind != "pool" for one in record.layers) > 1
    for layer, weights, slope in zip(record.layers, softmaxes.found, slopes, strict=False):
        mine = raw(layer.source)
        everything = slice(None)
        if mine.weights(everything, everything).shape != slope.shape:  # SigLIP's pooling head is torch's own
            continue
        seen = mine.weights(everything, everything) > 0
        assert seen.any()
        torch.testing.assert_close(
            mine.weights(everything, everything)[seen], weights.double()[seen], rtol=1e-4, atol=1e-6
        )
        torch.testing.assert_close(
            mine.gradients(everything, everything)[seen], slope.double()[seen], rtol=1e-4, atol=1e-7
        )


def test_the_gradient_of_an_item_does_not_depend_on_the_rest_of_the_batch():
    from attnlib import capture

    model, inputs = build("beit", torch.float64)
    together = capture(model, inputs, target=[3, 1])
    alone = capture(model, {"pixel_values": inputs["pixel_values"][1:]}, target=1)
    for both, one in zip(together.layers, alone.layers, strict=True):
        torch.testing.assert_close(both.gradients()[1:], one.gradients(), rtol=1e-4, atol=1e-9)


def test_gradients_of_single_precision_are_as_close_as_those_of_eager_attention():
    from attnlib import capture

    truth, inputs = build("mistral", torch.float64)
    truth = capture(truth, inputs, target=score)
    single, inputs = build("mistral", torch.float32)
    mine = capture(single, inputs, target=score)
    single.set_attn_implementation("eager")
    with Softmaxes() as softmaxes:
        output = single(**inputs)
    slopes = torch.autograd.grad(score(output).sum(), softmaxes.found)
    for layer, slope, exact in zip(mine.layers, slopes, truth.layers, strict=True):
        seen = exact.weights() > 0
        off = (layer.gradients() - exact.gradients())[seen].abs().max()
        assert off <= 3 * (slope - exact.gradients())[seen].abs().max() + 1e-8


@pytest.mark.parametrize("name", ["beit", "mistral", "bart"])
def test_gradients_of_an_eager_model_are_those_of_its_own_autograd_in_single_precision(name):
    from attnlib import capture

    model, inputs = build(name, torch.float32)
    model.set_attn_implementation("eager")
    record = capture(model, inputs, target=score)
    with Softmaxes() as softmaxes:
        output = model(**inputs)
    slopes = torch.autograd.grad(score(output).sum(), softmaxes.found)
    for layer, slope in zip(record.layers, slopes, strict=True):
        seen = layer.weights() > 0
        torch.testing.assert_close(layer.gradients()[seen], slope[seen], rtol=1e-4, atol=1e-7)
