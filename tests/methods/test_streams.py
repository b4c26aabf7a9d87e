"""Poolers, pictures inside a text, generation, co-attention: maps where more than one row of tokens meets."""

import pytest
import torch


def rollout_of(layers):
    product = None
    for layer in layers:
        fused = layer.weights().double().mean(1)
        eye = torch.eye(fused.shape[-1], dtype=torch.float64)
        mixed = 0.5 * fused + 0.5 * eye
        mixed = mixed / mixed.sum(-1, keepdim=True)
        product = mixed if product is None else mixed @ product
    return product


def test_a_model_without_class_token_is_read_by_its_poolers_own_row(tiny):
    from attnlib import capture, explain

    model = tiny("SiglipVisionModel", seed=1, num_hidden_layers=3, image_size=28, patch_size=4)
    inputs = {"pixel_values": torch.randn(2, 3, 28, 28)}
    record = capture(model, inputs, target=lambda output: output.pooler_output.pow(2).sum(-1))
    pool = record.layers[-1]
    assert pool.kind == "pool"
    pooled = pool.weights().double().mean(1)
    found = explain(record, "rollout")
    assert found.query == "the pooler's own row"
    product = rollout_of(record.layers[:-1])
    torch.testing.assert_close(found.scores.double(), (pooled @ product)[:, 0], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(explain(record, "raw").scores.double(), pooled[:, 0], rtol=1e-4, atol=1e-7)
    patch = explain(record, "rollout", query=(3, 5))
    torch.testing.assert_close(patch.scores.double(), product[:, 26], rtol=1e-4, atol=1e-7)
    relevance = torch.eye(49, dtype=torch.float64)
    for layer in record.layers[:-1]:
        cam = (layer.weights() * layer.gradients()).clamp(min=0).mean(1).double()
        relevance = relevance + cam @ relevance
    row = (pool.weights() * pool.gradients()).clamp(min=0).mean(1).double() @ relevance
    generic = explain(record, "generic_relevance").scores.double()
    torch.testing.assert_close(generic, row[:, 0], rtol=1e-4, atol=1e-7)
    slopes = [layer.gradients().clamp(min=0).mean(dim=(1, 2)) for layer in record.layers[:-1]]
    found = explain(record, "legrad")
    torch.testing.assert_close(found.scores, torch.stack(slopes).mean(dim=0), rtol=1e-4, atol=1e-9)
    assert "pooler" in " ".join(found.notes)
    cam = (pool.weights() * pool.gradients().mean(dim=(2, 3), keepdim=True)).mean(1).clamp(min=0)
    torch.testing.assert_close(
        explain(record, "attention_grad_cam").scores, cam.mean(1), rtol=1e-4, atol=1e-9
    )


@pytest.fixture(scope="module")
def llava():
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(2)
    eye = CLIPVisionConfig(
        hidden_size=24, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2, image_size=28,
        patch_size=4, projection_dim=8,
    )  # fmt: skip
    mouth = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=200,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=eye, text_config=mouth, image_token_index=39)
    ).eval()
    ids = torch.tensor([[1, 5] + [39] * 49 + [6, 7, 8]])
    return model, {"input_ids": ids, "pixel_values": torch.randn(1, 3, 28, 28)}


def test_a_token_of_a_vision_language_model_gets_a_map_over_the_picture(llava):
    from attnlib import capture, explain

    model, inputs = llava
    record = capture(model, inputs, target=7).select(stream="text")
    product = rollout_of(record.layers)
    for token in (51, 53):
        found = explain(record, "rollout", query=token)
        assert found.heatmap().shape == (1, 7, 7)
        picture = product[:, token, 2:51].unflatten(-1, (7, 7))
        torch.testing.assert_close(found.heatmap().double(), picture, rtol=1e-4, atol=1e-7)
    before = explain(record, "rollout", query=1)
    assert float(before.heatmap().abs().sum()) == 0
    assert explain(record, "generic_relevance").heatmap().sum() > 0


def test_written_tokens_are_rows_too_and_their_steps_are_joined(llava):
    from attnlib import capturing, explain

    model, inputs = llava
    with capturing(model) as record:
        written = model.generate(**inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    text = record.select(stream="text")
    total = 54 + written.shape[1] - inputs["input_ids"].shape[1] - 1
    assert total == 57
    with capturing(model) as at_once, torch.no_grad():
        model(input_ids=written[:, :total], pixel_values=inputs["pixel_values"])
    for token in (53, 56):
        stepwise = explain(text, "rollout", query=token)
        wanted = explain(at_once.select(stream="text"), "rollout", query=token)
        torch.testing.assert_close(stepwise.scores, wanted.scores, rtol=1e-3, atol=1e-6)
        picture = wanted.scores[:, 2:51].unflatten(-1, (7, 7))
        torch.testing.assert_close(stepwise.heatmap(), picture, rtol=1e-3, atol=1e-6)
        assert stepwise.layout.spans["generated"] == (54, 57)
        assert "joined" in " ".join(stepwise.notes)


def test_a_word_can_be_asked_for_by_its_text_if_it_stands_there_once():
    from attnlib import AttentionRecord, TokenLayout, explain

    weights = [torch.rand(1, 2, 4, 4).softmax(-1)] * 3
    layout = TokenLayout(None, tokens=["the", "cat", "saw", "the"], readout=[3])
    record = AttentionRecord.from_weights(weights, layout=layout)
    torch.testing.assert_close(explain(record, query="cat").scores, explain(record, query=1).scores)
    with pytest.raises(ValueError, match=r"\[0, 3\]"):
        explain(record, query="the")


def test_several_streams_are_refused_until_one_is_chosen(llava):
    from attnlib import capture, explain
    from attnlib.errors import LayoutError

    model, inputs = llava
    record = capture(model, inputs)
    for name in ("rollout", "raw"):
        with pytest.raises(LayoutError, match="select"):
            explain(record, name)


def test_generic_relevance_refuses_streams_that_do_not_read_each_other(llava):
    from attnlib import capture, explain
    from attnlib.errors import LayoutError

    model, inputs = llava
    record = capture(model, inputs, target=7)
    with pytest.raises(LayoutError, match="without cross-attention"):
        explain(record, "generic_relevance")


def test_a_stream_of_which_only_some_tokens_are_read_is_refused_with_what_to_do(tiny):
    """The decoder of Pegasus-X reads the words of its encoder, whose attention has global tokens too."""
    from attnlib import capture, explain
    from attnlib.errors import InputError

    model = tiny(
        "PegasusXForConditionalGeneration", vocab_size=50, d_model=24, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=3, decoder_attention_heads=3, encoder_ffn_dim=20, decoder_ffn_dim=20,
        num_global_tokens=4, block_size=8, max_position_embeddings=64,
    )  # fmt: skip
    ids = torch.arange(3, 35).view(2, 16)
    inputs = {"input_ids": ids, "decoder_input_ids": ids[:, :5]}
    record = capture(model, inputs, target=lambda output: output.logits[:, -1, 3])
    with pytest.raises(InputError, match=r"16 keys.*20 tokens.*select\(stream=.*'raw'"):
        explain(record, "generic_relevance")
    assert explain(record.select(stream="encoder", kind="self"), "generic_relevance").scores.shape == (2, 20)
