"""Several texts in one batch: each keeps its own words."""

import pytest

from attnlib import TokenLayout, capture, explain, load_model
from attnlib.errors import InputError
from attnlib.widgets import viewer

TEXTS = ["Time flies like an arrow.", "Fruit flies like a ripe banana."]
WORDS = ["[CLS]", "fruit", "flies", "like", "a", "ripe", "banana", ".", "[SEP]"]


@pytest.fixture(scope="module")
def record():
    """Two sentences, the first of them shorter."""
    return capture(load_model("minilm-l6"), TEXTS)


def test_each_text_of_a_batch_has_its_own_labels(record):
    layout = record.layouts["text"]
    assert "9 tokens in each of 2 texts" in str(layout)
    assert layout.of_item(1).tokens == tuple(WORDS)
    assert layout.of_item(0).label(1) == "time"
    assert layout.label(1) == "token 1", "no item, no words"


def test_a_layout_with_labels_of_each_item_comes_back_from_json(record):
    layout = record.layouts["text"]
    assert TokenLayout.from_dict(layout.to_dict()) == layout


def test_a_table_of_two_texts_names_the_tokens_of_each(record):
    frame = explain(record, "rollout").to_frame()
    assert list(frame[frame["item"] == 1]["label"]) == WORDS


def test_one_item_of_a_map_has_the_labels_of_that_text(record):
    assert explain(record, "rollout").item(1).layout.tokens == tuple(WORDS)


def test_the_viewer_shows_the_words_of_the_chosen_text(record):
    page = viewer(record, item=1).to_html()
    assert "banana" in page
    assert '"arrow"' not in page


def test_a_word_is_found_where_it_stands_in_each_text():
    pair = ["Ripe fruit flies.", "It flies like fruit."]
    two = capture(load_model("minilm-l6"), pair)
    both = explain(two, "rollout", query="flies")
    for item, place in enumerate((3, 2)):
        alone = explain(two, "rollout", query=place).scores[item]
        assert both.scores[item].allclose(alone)


def test_a_word_that_one_text_lacks_is_no_query(record):
    with pytest.raises(InputError, match="banana"):
        explain(record, "rollout", query="banana")


def test_labels_of_another_length_than_the_layout_are_refused():
    with pytest.raises(InputError, match=r"\[3, 2\]"):
        TokenLayout(None, tokens=["a", "b", "c"], item_tokens=[["a", "b", "c"], ["d", "e"]])
