"""minilm-l6: sentence embeddings, readable tokens, words and pairs."""

import pytest
import torch

TEXTS = [
    "A cat sleeps on the sofa.",
    "The kitten takes a nap.",
    "Stock prices fell sharply on Monday morning.",
]


@pytest.fixture(scope="module")
def answered(minilm):
    prepared = minilm.prepare(TEXTS)
    with torch.no_grad():
        return prepared, minilm.model(**prepared.inputs)


def test_the_embedding_is_the_mean_of_the_tokens_that_are_not_padding(minilm, answered):
    prepared, output = answered
    for index, length in enumerate(prepared.inputs["attention_mask"].sum(dim=1).tolist()):
        mean = output.last_hidden_state[index, :length].mean(dim=0)
        torch.testing.assert_close(output.sentence_embedding[index], mean / mean.norm())


def test_padding_does_not_change_the_answer(minilm, answered):
    with torch.no_grad():
        alone = minilm.model(**minilm.prepare(TEXTS[0]).inputs)
    torch.testing.assert_close(
        alone.sentence_embedding[0], answered[1].sentence_embedding[0], atol=2e-6, rtol=0
    )


def test_close_sentences_are_found_and_the_numbers_are_cosines(minilm, answered):
    prepared, output = answered
    said = minilm.said(output, texts=prepared.texts)
    cosine = output.sentence_embedding @ output.sentence_embedding.T
    assert said.kind == "similarity"
    assert said.scores[0][0] == (TEXTS[1], pytest.approx(float(cosine[0, 1]), abs=1e-6))
    assert said.scores[0][0][1] > 0.3 > said.scores[0][1][1]
    assert TEXTS[1] in said.sentences[0]


def test_one_text_alone_is_compared_with_nothing(minilm):
    prepared = minilm.prepare("alone")
    with torch.no_grad():
        said = minilm.said(minilm.model(**prepared.inputs), texts=prepared.texts)
    assert said.scores == ((),)
    assert "two or more" in said.sentences[0]


def test_tokens_have_readable_labels_and_words_of_several_tokens_are_spans(minilm):
    prepared = minilm.prepare(["Photosynthesizing plants, photosynthesizing algae"])
    (layout,) = prepared.layouts
    assert layout.tokens[0] == "[CLS]"
    assert layout.tokens[-1] == "[SEP]"
    assert any(label.startswith("##") for label in layout.tokens)
    first, second = (layout.spans[f"word '{name}"] for name in ("Photosynthesizing'", "photosynthesizing'"))
    for start, stop in (first, second):
        assert "".join(t.removeprefix("##") for t in layout.tokens[start:stop]) == "photosynthesizing"
    assert second[0] > first[1]
    assert layout.readout == tuple(range(len(layout.tokens)))


def test_the_same_word_twice_has_two_names(minilm):
    (layout,) = minilm.prepare(["antidisestablishment antidisestablishment"]).layouts
    assert list(layout.spans) == ["word 'antidisestablishment'", "word 'antidisestablishment' (2)"]


def test_padding_is_marked_and_not_read(minilm):
    prepared = minilm.prepare(TEXTS)
    assert prepared.seen.sum(dim=1).tolist() == [len(layout.readout) for layout in prepared.layouts]
    assert prepared.layouts[1].tokens[-1] == "[PAD]"


def test_a_pair_of_sentences_is_one_input_with_two_spans(minilm):
    prepared = minilm.prepare([("Who sleeps?", "The cat does.")])
    (layout,) = prepared.layouts
    one, two = layout.spans["sentence 1"], layout.spans["sentence 2"]
    assert layout.tokens[slice(*one)] == ("who", "sleeps", "?")
    assert layout.tokens[slice(*two)] == ("the", "cat", "does", ".")
    assert prepared.texts == ("Who sleeps? | The cat does.",)


def test_a_text_that_is_too_long_is_cut_and_said(minilm):
    prepared = minilm.prepare(["word " * 300])
    assert prepared.inputs["input_ids"].shape == (1, 256)
    assert "256 of its 302 tokens" in prepared.notes[0]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("", "empty"),
        ([], "no picture or text"),
        ([3], "a text or a pair of texts, got 3"),
        (["a", ("b", "c")], "share a batch"),
    ],
)
def test_what_is_no_text_is_refused(minilm, texts, message):
    from attnlib.errors import InputError

    with pytest.raises(InputError, match=message):
        minilm.prepare(texts)


def test_it_is_a_bert_with_six_layers_and_twelve_heads(minilm):
    from transformers import BertModel

    assert isinstance(minilm.model, BertModel)
    assert (minilm.model.config.num_hidden_layers, minilm.model.config.num_attention_heads) == (6, 12)
    assert not minilm.model.training
