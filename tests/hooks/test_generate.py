"""Generation with a cache: steps, what the prompt held, and models that look at pictures on the way."""

import gc

import pytest
import torch

TEXT = {
    "vocab_size": 47,
    "num_hidden_layers": 3,
    "intermediate_size": 17,
    "eos_token_id": None,
    "bos_token_id": None,
}
WRITTEN = 3


@pytest.fixture(scope="module")
def llava():
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(0)
    eye = CLIPVisionConfig(
        hidden_size=24,
        num_attention_heads=3,
        num_hidden_layers=2,
        intermediate_size=13,
        image_size=40,
        patch_size=8,
    )
    mouth = LlamaConfig(hidden_size=28, num_attention_heads=7, num_key_value_heads=7, **TEXT)
    config = LlavaConfig(vision_config=eye, text_config=mouth, image_token_index=39)
    ids = torch.randint(3, 38, (2, 36), generator=torch.Generator().manual_seed(1))
    ids[:, 4:29] = 39
    return LlavaForConditionalGeneration(config).eval(), {
        "input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.rand(2, 3, 40, 40),
    }  # fmt: skip


@pytest.fixture(scope="module")
def qwen():
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    config = Qwen2VLConfig(
        text_config={
            **TEXT, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "rope_parameters": rope,
            "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]},
        },
        vision_config={
            "depth": 2, "embed_dim": 24, "hidden_size": 32, "num_heads": 3, "mlp_ratio": 2, "patch_size": 7,
            "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
        image_token_id=39, vision_start_token_id=40, vision_end_token_id=41, video_token_id=42,
    )  # fmt: skip
    return Qwen2VLForConditionalGeneration(config).eval()


def looking(grids, length):
    """Return inputs with one picture an item; patches lie block by block, as its processor lays them."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 38, (len(grids), length), generator=generator)
    for item, (height, width) in enumerate(grids):
        stop = 4 + height * width // 4
        ids[item, 3], ids[item, 4:stop], ids[item, stop] = 40, 39, 41
    count = sum(height * width for height, width in grids)
    return {
        "input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": (ids == 39).long(),
        "pixel_values": torch.randn(count, 3 * 2 * 49, generator=generator),
        "image_grid_thw": torch.tensor([[1, *grid] for grid in grids]),
    }  # fmt: skip


def written(model, inputs, **options):
    return model.generate(
        **inputs, max_new_tokens=WRITTEN, min_new_tokens=WRITTEN, do_sample=False, **options
    )


@pytest.mark.parametrize(
    ("name", "grid", "patch", "span"),
    [("llava", (5, 5), (8, 8), (4, 29)), ("qwen", (3, 4), (14, 14), (4, 16))],
)
def test_the_picture_of_the_prompt_is_still_known_when_the_steps_are_joined(request, name, grid, patch, span):
    from attnlib import capturing, explain

    model = request.getfixturevalue(name)
    model, inputs = model if name == "llava" else (model, looking([(6, 8), (6, 8)], 20))
    with capturing(model) as record:
        text = written(model, inputs, suppress_tokens=[39, 40, 41, 42])
    prompt = inputs["input_ids"].shape[1]
    total = prompt + WRITTEN - 1
    layout = record.layouts["text"]
    assert (layout.grid, layout.patch_size, layout.spans["image"]) == (grid, patch, span)
    joined = record.select(stream="text").joined()
    assert joined.layout.spans["image"] == span
    assert joined.layout.spans["generated"] == (prompt, total)
    assert joined.layout.num_tokens == total
    whole = {**inputs, "input_ids": text[:, :total], "attention_mask": torch.ones(2, total).long()}
    if "mm_token_type_ids" in whole:
        whole["mm_token_type_ids"] = (whole["input_ids"] == 39).long()
    with torch.no_grad(), capturing(model) as at_once:
        model(**whole)
    others = at_once.select(stream="text").layers
    for one, other in zip(joined.layers, others, strict=True):
        torch.testing.assert_close(one.weights(), other.weights(), rtol=1e-4, atol=1e-6)
        assert one.weights().triu(1).abs().max() == 0
    maps = explain(joined, "rollout", query=total - 1).heatmap()
    assert maps.shape == (2, *grid)
    assert record.layouts["vision"].grid == ((5, 5) if name == "llava" else (6, 8))


def test_pictures_packed_behind_one_another_are_items_and_stand_row_by_row(qwen):
    from attnlib import capture

    inputs = looking([(6, 8), (6, 8)], 20)
    record = capture(qwen, inputs).select(stream="vision")
    assert [one.batch_size for one in record.layers] == [2, 2]
    second = {
        **inputs,
        "pixel_values": inputs["pixel_values"][48:],
        "image_grid_thw": inputs["image_grid_thw"][1:],
    }
    second = {key: value if len(value) in (1, 48) else value[1:] for key, value in second.items()}
    alone = capture(qwen, second).select(stream="vision")
    torch.testing.assert_close(record.layers[1].weights()[1:], alone.layers[1].weights())
    # row by row instead of block by block: token 1 of the list is patch (0, 1), token 2 is patch (1, 0)
    raw = alone.layers[0].source.pieces[0].source.weights([1], [0])
    torch.testing.assert_close(alone.layers[0].weights(heads=1, queries=0)[..., [0, 1, 8, 9]], raw[..., :4])


def test_pictures_of_different_size_never_mix(qwen):
    from attnlib import capture

    record = capture(qwen, looking([(6, 8), (4, 4)], 20)).select(stream="vision")
    assert len(record.layers) == 2
    weights = record.layers[0].weights()
    assert weights.shape[-2:] == (64, 64)
    assert weights[:, :, :48, 48:].abs().max() == weights[:, :, 48:, :48].abs().max() == 0
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_translator_keeps_its_cross_attention_and_says_whose_tokens_the_keys_are(cache):
    from transformers import BartConfig, BartForConditionalGeneration

    from attnlib import capture, capturing

    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=47, d_model=24, encoder_layers=2, decoder_layers=2, encoder_attention_heads=3,
        decoder_attention_heads=2, encoder_ffn_dim=13, decoder_ffn_dim=17, max_position_embeddings=31,
        forced_eos_token_id=None,
    )  # fmt: skip
    model = BartForConditionalGeneration(config).eval()
    ids = torch.randint(3, 47, (2, 11), generator=torch.Generator().manual_seed(1))
    with capturing(model) as record:
        text = written(model, {"input_ids": ids}, cache_implementation=cache)
    cross = record.select(kind="cross").layers
    assert {one.key_stream for one in cross} == {"encoder"}
    assert {one.key_layout.num_tokens for one in cross} == {11}
    joined = record.select(stream="decoder").joined()
    whole = capture(model, {"input_ids": ids, "decoder_input_ids": text[:, :WRITTEN]})
    assert {one.key_stream for one in whole.select(kind="cross").layers} == {"encoder"}
    for one, other in zip(joined.layers, whole.select(stream="decoder").layers, strict=True):
        assert (one.kind, one.index) == (other.kind, other.index)
        torch.testing.assert_close(one.weights(), other.weights(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_memory_of_a_generation_grows_with_its_length_only(llava, cache):
    from attnlib import capturing
    from attnlib.hooks.budget import tensors_of

    model = llava[0].model.language_model
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    speaker = LlamaForCausalLM(model.config).eval()
    prompt = torch.randint(3, 38, (1, 5))
    held = []
    for length in (8, 16, 32):
        with capturing(speaker) as record:
            speaker.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=length, min_new_tokens=length,
                do_sample=False, cache_implementation=cache,
            )  # fmt: skip
        gc.collect()
        storages = {
            one.untyped_storage().data_ptr(): one.untyped_storage().nbytes()
            for layer in record.layers for one in tensors_of(layer.source)
        }  # fmt: skip
        held.append(sum(storages.values()))
        assert record.joined().layers[0].weights().shape[-2:] == (length + 4, length + 4)
    assert held[2] - held[1] < 2.6 * (held[1] - held[0])


def test_layers_of_a_generation_can_be_limited(llava):
    from attnlib import capturing

    model, inputs = llava
    with capturing(model, layers=-1) as record:
        written(model, inputs)
    with capturing(model) as whole:
        written(model, inputs)
    assert {(one.stream, one.index, one.step) for one in record.layers} >= {("text", 2, 0), ("text", 2, 2)}
    assert {one.index for one in record.select(stream="text").layers} == {2}
    mine = record.select(stream="text").joined().layers[0]
    torch.testing.assert_close(
        mine.weights(), whole.select(stream="text", layers=2).joined().layers[0].weights()
    )


def mistral(how, groups=3):
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(
        **TEXT, hidden_size=24, num_attention_heads=3, num_key_value_heads=groups, sliding_window=5
    )
    config._attn_implementation = how
    return MistralForCausalLM(config).eval()


def prompt(length, batch=2):
    return torch.randint(3, 38, (batch, length), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("length", [3, 7])
@pytest.mark.parametrize("how", ["sdpa", "eager"])
def test_a_cache_that_forgets_is_joined_at_the_places_of_its_tokens(how, length):
    from attnlib import capturing, explain

    model = mistral(how)
    ids = prompt(length)
    with capturing(model) as record:
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=6,
            do_sample=False,
            pad_token_id=0,
        )
    joined = record.joined()
    model.set_attn_implementation("eager")
    expected = model(out[:, :-1], output_attentions=True).attentions
    for layer, weights in zip(joined.layers, expected, strict=True):
        torch.testing.assert_close(layer.weights(), weights, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(layer.weights(queries=[-1]), weights[:, :, -1:], rtol=1e-4, atol=1e-6)
        assert layer.values().shape == (2, 3, length + 5, 8)
    assert explain(joined, "rollout").scores.shape == (2, length + 5)


@pytest.mark.parametrize("how", ["sdpa", "eager"])
def test_beams_that_change_places_are_not_joined(how):
    from attnlib import capturing
    from attnlib.errors import InputError

    model = mistral(how)
    model.config.sliding_window = None
    with capturing(model) as record:
        model.generate(
            input_ids=prompt(7), max_new_tokens=6, num_beams=3, do_sample=False, pad_token_id=0,
            attention_mask=torch.ones(2, 7, dtype=torch.long),
        )  # fmt: skip
    assert record.select(step=5).layers[0].weights().shape[:3] == (6, 3, 1)
    with pytest.raises(InputError, match="reordered"):
        record.joined()


def test_padding_of_the_prompt_is_padding_of_the_joined_text():
    from attnlib import capturing, explain

    model = mistral("sdpa")
    ids, mask = prompt(4), torch.ones(2, 4, dtype=torch.long)
    mask[0, :2] = 0
    with capturing(model) as record:
        model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=3, do_sample=False, pad_token_id=0)
    joined = record.joined()
    assert joined.seen["text"].tolist() == [[False, False, True, True, True, True], [True] * 6]
    assert not explain(joined, "rollout").scores[0, :2].any()


@pytest.mark.parametrize("cache", ["static", "dynamic"])
@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("how", ["sdpa", "eager"])
def test_steps_with_padding_shared_keys_or_empty_places_are_joined(how, padding, cache):
    from attnlib import capture, capturing, explain

    model = mistral(
        how, groups=1
    )  # with a mask its keys are repeated for the queries, without one they are not
    model.config.sliding_window = 32
    ids, mask = prompt(6), torch.ones(2, 6, dtype=torch.long)
    mask[0, :padding] = 0
    with capturing(model) as record:
        out = written(
            model, {"input_ids": ids, "attention_mask": mask}, cache_implementation=cache, pad_token_id=0
        )
    total = 6 + WRITTEN - 1
    joined = record.joined()
    whole = capture(
        model,
        {"input_ids": out[:, :total], "attention_mask": torch.cat([mask, mask.new_ones(2, WRITTEN - 1)], 1)},
    )
    for one, other in zip(joined.layers, whole.layers, strict=True):
        assert (one.num_queries, one.num_keys) == (total, total)
        torch.testing.assert_close(one.weights(), other.weights(), rtol=1e-4, atol=1e-6)
        assert one.values().shape == other.values().shape
    assert joined.seen.keys() == whole.seen.keys()
    scores = explain(joined, "rollout").scores
    torch.testing.assert_close(scores, explain(whole, "rollout").scores, rtol=1e-4, atol=1e-6)


def test_rows_that_were_kept_stand_at_their_places_when_the_steps_are_joined():
    from attnlib import capturing

    model = mistral("sdpa")
    inputs = {"input_ids": prompt(6), "attention_mask": torch.ones(2, 6, dtype=torch.long)}
    with capturing(model) as whole:
        written(model, inputs, pad_token_id=0)
    with capturing(model, queries=-1) as record:
        written(model, inputs, pad_token_id=0)
    layer, all_of_it = record.joined().layers[0], whole.joined().layers[0]
    assert (layer.queries, layer.num_queries) == ((5, 6, 7), 8)
    torch.testing.assert_close(layer.weights(), all_of_it.weights(queries=[5, 6, 7]))
    torch.testing.assert_close(layer.weights(queries=-2), all_of_it.weights(queries=6))
