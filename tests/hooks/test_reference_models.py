"""Weights and gradients of real forward passes equal the reference values."""

import pytest
import torch

MODELS = {
    "vit": ("AutoModelForImageClassification", {"attentions": ("vision", "self")}),
    "deit": ("AutoModelForImageClassification", {"attentions": ("vision", "self")}),
    "dinov2_registers": ("AutoModelForImageClassification", {"attentions": ("vision", "self")}),
    "bert": ("AutoModelForSequenceClassification", {"attentions": ("text", "self")}),
    "gpt2": ("AutoModelForCausalLM", {"attentions": ("text", "self")}),
    "llama": ("AutoModelForCausalLM", {"attentions": ("text", "self")}),
    "clip": ("CLIPModel", {"vision_attentions": ("vision", "self"), "text_attentions": ("text", "self")}),
    "t5": (
        "AutoModelForSeq2SeqLM",
        {
            "encoder_attentions": ("encoder", "self"),
            "decoder_attentions": ("decoder", "self"),
            "cross_attentions": ("decoder", "cross"),
        },
    ),
}


def score(name, output, given):
    if name == "clip":
        return output.logits_per_image.diagonal()
    if name == "t5":
        place = int(given["decoder_position"])
        return output.logits[torch.arange(len(output.logits)), place, given["target"]]
    logits = output.logits if output.logits.dim() == 2 else output.logits[:, -1]
    return logits[torch.arange(len(logits)), given["target"]]


# the reference values are float64; a float32 model rounds them, in eager attention just as here
@pytest.mark.parametrize(("dtype", "absolute"), [(torch.float64, 1e-7), (torch.float32, 1e-6)])
@pytest.mark.parametrize("name", MODELS)
def test_weights_and_gradients_equal_the_reference(reference, name, dtype, absolute):
    import transformers

    from attnlib import capture

    kind, streams = MODELS[name]
    model = getattr(transformers, kind).from_pretrained(reference.model_dir(name)).to(dtype).eval()
    case = reference.model(name)
    given = {key: torch.from_numpy(value) for key, value in case["input"].items()}
    inputs = {
        k: v.to(dtype) if v.is_floating_point() else v
        for k, v in given.items()
        if k in ("pixel_values", "input_ids", "attention_mask", "decoder_input_ids")
    }
    record = capture(model, inputs, target=lambda output: score(name, output, given))
    for key, (stream, which) in streams.items():
        layers = record.select(stream=stream, kind=which).layers
        slopes = case["expected"][key.replace("attentions", "attention_gradients")]
        assert len(layers) == len(slopes)
        for index, layer in enumerate(layers):
            wanted = torch.from_numpy(slopes[index]).to(dtype)
            seen = (
                layer.weights() > 0
            )  # where nothing may be looked at, eager attention has no gradient of use
            torch.testing.assert_close(layer.gradients()[seen], wanted[seen], rtol=1e-4, atol=absolute)
            if key in case["expected"]:
                weights = torch.from_numpy(case["expected"][key][index]).to(dtype)
                torch.testing.assert_close(layer.weights(), weights, rtol=1e-4, atol=1e-6)
