"""Captured models against the reference values, on the models' own fused attention."""

import pytest
import torch


def close(got, wanted, rtol=1e-4, atol=1e-7):
    torch.testing.assert_close(got.double(), torch.as_tensor(wanted).double(), rtol=rtol, atol=atol)


def load(reference, name, class_name, dtype=torch.float32):
    import transformers

    model = getattr(transformers, class_name).from_pretrained(reference.model_dir(name)).eval().to(dtype)
    groups = reference.model(name)
    inputs = {}
    for key in ("pixel_values", "input_ids", "attention_mask", "decoder_input_ids"):
        if key in groups["input"]:
            value = torch.as_tensor(groups["input"][key])
            inputs[key] = value.to(dtype) if value.is_floating_point() else value
    return model, inputs, groups


FAMILIES = {
    "vit": "ViTForImageClassification",
    "deit": "DeiTForImageClassificationWithTeacher",
    "dinov2_registers": "Dinov2WithRegistersForImageClassification",
    "bert": "BertForSequenceClassification",
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_propagation_methods_equal_the_reference_on_captured_models(reference, name, dtype):
    from attnlib import capture, explain

    model, inputs, groups = load(reference, name, FAMILIES[name], dtype)
    wanted = groups["expected"]
    record = capture(model, inputs, target=[int(i) for i in groups["input"]["target"]])
    tolerance = {} if dtype == torch.float32 else {"rtol": 1e-6, "atol": 1e-8}
    for last in range(len(record)):
        ask = {"query": "all", "layers": range(last + 1)}
        close(explain(record, "rollout", **ask).scores, wanted["rollout"][last], **tolerance)
        relevance = explain(record, "generic_relevance", **ask)
        close(relevance.scores, wanted["chefer_relevance_layers"][last], **tolerance)
        product = explain(record, "attention_gradient", query="all", layers=last).scores
        close(product, wanted["gradient_x_attention"][last], **tolerance)
        positive = explain(record, "attention_gradient", query="all", layers=last, positive=True).scores
        close(positive, wanted["chefer_cam"][last], **tolerance)
    row = explain(record, "generic_relevance", query=0).scores
    close(row, wanted["chefer_relevance"][:, 0], **tolerance)
    close(explain(record, "rollout", query=0).scores, wanted["rollout"][-1][:, 0], **tolerance)


def test_the_class_row_of_vit_and_its_published_variants(reference):
    from attnlib import capture, explain

    model, inputs, groups = load(reference, "vit", "ViTForImageClassification", torch.float64)
    wanted = groups["expected"]
    record = capture(model, inputs, target=[int(i) for i in groups["input"]["target"]])
    late = explain(record, "rollout", start_layer=1).heatmap().flatten(1)
    close(late, wanted["rollout_cls_start_layer_1"], rtol=1e-6)
    close(explain(record, "raw").heatmap().flatten(1), wanted["last_layer_attention"], rtol=1e-6)
    compared = 0
    for key in wanted:
        if not key.startswith("vit_explain."):
            continue
        _, fusion, discard, reading, _ = key.split(".")
        options = {"discard_ratio": float(discard.removeprefix("discard_").replace("p", "."))}
        if reading == "as_implemented":
            options["variant"] = "vit-explain"
        if fusion == "grad":
            found = explain(record, "gradient_rollout", **options)
        else:
            found = explain(record, "rollout", head_fusion=fusion, **options)
        heat = found.heatmap()
        close(heat / heat.amax(dim=(-2, -1), keepdim=True), wanted[key], rtol=1e-5, atol=1e-6)
        compared += 1
    assert compared == 24


@pytest.mark.parametrize(
    ("setting", "options"),
    [
        ("last_layer", {"variant": "chefer-clip-notebook"}),
        ("all_layers", {}),
        ("start_layer_1", {"start_layer": 1}),
    ],
)
def test_clip_gives_a_map_per_prompt_and_scores_per_word(reference, setting, options):
    from attnlib import capture, explain

    model, inputs, groups = load(reference, "clip", "CLIPModel")
    wanted = {
        k.split(".")[-1]: v for k, v in groups["expected"].items() if k.startswith(f"chefer_clip.{setting}.")
    }
    record = capture(model, inputs, target=lambda output: output.logits_per_image.diagonal())
    image = explain(record.select(stream="vision"), "generic_relevance", query=0, **options)
    close(image.heatmap().flatten(1), wanted["image_relevance"])
    text = record.select(stream="text")
    close(explain(text, "generic_relevance", query="all", **options).scores, wanted["text_relevance"])
    ends = inputs["input_ids"].argmax(dim=-1)
    rows = explain(text, "generic_relevance", query=ends, **options).scores
    for item, end in enumerate(ends.tolist()):
        words = rows[item, 1:end]
        close(words / words.sum(), wanted["text_scores"][item, 1:end])


@pytest.mark.parametrize("reading", ["chefer_normalised", "chefer_not_normalised"])
def test_encoder_decoder_relevance_of_t5(reference, reading):
    from attnlib import capture, explain

    model, inputs, groups = load(reference, "t5", "T5ForConditionalGeneration")
    given, wanted = groups["input"], groups["expected"]
    position, target = int(given["decoder_position"]), torch.as_tensor(given["target"])
    record = capture(
        model, inputs, target=lambda output: output.logits[torch.arange(len(target)), position, target]
    )
    ask = {"query": "all", "normalise": reading == "chefer_normalised"}
    across = wanted.get(f"{reading}.zero_row_safe.R_qi", wanted[f"{reading}.R_qi"])
    close(explain(record, "generic_relevance", **ask).scores, across, atol=1e-6)
    own = explain(record, "generic_relevance", key_stream="decoder", **ask).scores
    close(own, wanted[f"{reading}.R_qq"], atol=1e-6)
    row = explain(record, "generic_relevance", query=position, normalise=ask["normalise"])
    close(row.scores, torch.as_tensor(across)[:, position], atol=1e-6)
    encoder = explain(record.select(stream="encoder"), "rollout", query="all").scores
    close(encoder, wanted["encoder_rollout"][-1])
    decoder = explain(record.select(stream="decoder"), "rollout", query="all").scores
    close(decoder, wanted["decoder_rollout"][-1])
    cross = explain(record.select(stream="decoder", kind="cross"), "raw", query=position, layers=-1)
    close(cross.scores, torch.as_tensor(wanted["cross_attentions"][-1]).mean(1)[:, position])


def test_legrad_takes_each_layers_own_score(reference):
    from attnlib import capture, explain
    from attnlib.methods import layer_scores

    model, inputs, groups = load(reference, "clip", "CLIPModel")
    text = torch.as_tensor(groups["input"]["text_embedding"]).float()
    vision = model.vision_model

    def score(tokens):
        pooled = model.visual_projection(vision.post_layernorm(tokens.mean(dim=1)))
        return torch.nn.functional.cosine_similarity(pooled, text)

    record = capture(model, {**inputs, "output_hidden_states": True}, target=layer_scores(score))
    record = record.select(stream="vision")
    wanted = groups["legrad"]["all_layers.layer_token_maps"]
    for layer in range(len(record)):
        close(explain(record, "legrad", layers=layer).heatmap(), wanted[layer])
    assert explain(record, "legrad").notes == ()
    last_two = explain(record, "legrad", layers=[-2, -1]).heatmap()
    low, high = last_two.amin((-2, -1), keepdim=True), last_two.amax((-2, -1), keepdim=True)
    close((last_two - low) / (high - low), groups["legrad"]["last_two_layers.token_map_min_max"], atol=1e-6)
