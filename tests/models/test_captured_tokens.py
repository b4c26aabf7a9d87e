"""What model and tokenizer know about tokens reaches the record that a capture makes."""

import pytest
import torch


def test_a_text_has_its_own_words_in_the_record_and_in_every_layer(minilm):
    from attnlib import capture

    record = capture(minilm, "Photosynthesizing plants eat light")
    layout = record.layout
    assert layout.tokens[0] == "[CLS]"
    assert "plants" in layout.tokens
    assert "word 'Photosynthesizing'" in layout.spans
    assert layout.readout == tuple(range(layout.num_tokens))  # the mean of all tokens
    assert {layer.key_layout.tokens for layer in record.layers} == {layout.tokens}


def test_texts_of_a_batch_share_numbered_tokens_and_padding_is_not_seen(minilm):
    from attnlib import capture

    record = capture(minilm, ["Photosynthesizing plants eat light", "A cat"])
    assert record.layout.tokens[2] == "token 2"
    assert record.seen["text"][1].tolist() == [True] * 4 + [False] * (record.layout.num_tokens - 4)


@pytest.mark.parametrize("size", [56, 98])
def test_the_readout_of_the_embedded_vision_model_is_its_patches(saliency, size):
    from attnlib import capture

    record = capture(saliency, saliency.prepare("sample:poster", size=size))
    assert record.layout.readout == "patches"
    assert record.layout.prefix_tokens == ("class",)
    assert record.layout.grid == (size // 14, round(size * 0.75 / 14))
    assert record.views[0].box == (0, 0, 600, 800)
    assert all(layer.key_layout.readout == "patches" for layer in record.layers)


def test_a_language_model_reads_the_last_real_token(save):
    from attnlib import capture, load_model

    record = capture(load_model(save("gpt2")), "a red star")
    assert record.layout.tokens == ("<bos>", "a", "red", "star", "<eos>")
    assert record.layout.readout == (4,)


def test_a_captioner_shows_the_words_so_far_in_the_decoder(save, scene):
    from attnlib import capture, load_model

    loaded = load_model(save("captioner"))
    record = capture(loaded, loaded.prepare(scene, texts=["a red"]))
    assert record.layouts["decoder"].tokens == ("<bos>", "a", "red")
    assert record.layouts["encoder"].grid == (5, 5)


def test_a_pair_has_the_picture_in_one_stream_and_its_words_in_the_other(save, scene):
    from attnlib import capture, load_model

    loaded = load_model(save("clip"))
    record = capture(loaded, loaded.prepare(scene, texts=["a red star", "the sea"]))
    assert record.select(stream="vision").layout.grid == (5, 5)
    assert record.select(stream="text").layout.num_tokens == 5
    one = capture(loaded, loaded.prepare(scene, texts=["a red star"])).select(stream="text").layout
    assert one.tokens == ("<bos>", "a", "red", "star", "<eos>")
    assert record.views[0].picture_size == (90, 60)
    assert isinstance(record.output.logits_per_image, torch.Tensor)
