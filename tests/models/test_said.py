"""What the model said, in words bound to its numbers; what is not understood is said to be so."""

from types import SimpleNamespace

import pytest
import torch


@pytest.fixture
def read():
    from attnlib.models.said import read_output

    return read_output


def test_labels_are_sorted_probabilities(read):
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])
    said = read({"logits": logits}, labels=("star", "ring", "sea"))
    assert [name for name, _ in said.scores[0]] == ["ring", "sea", "star"]
    assert sum(value for _, value in said.scores[0]) == pytest.approx(1)
    assert said.sentences[0].startswith('The model says "ring" with probability 0.67')
    assert '"star" with probability 0.91' in said.sentences[1]


def test_at_most_five_labels_are_listed(read):
    assert len(read(torch.zeros(1, 11), labels=[f"label {i}" for i in range(11)]).scores[0]) == 5


def test_several_labels_at_once_have_their_own_probabilities(read):
    config = SimpleNamespace(problem_type="multi_label_classification")
    said = read({"logits": torch.tensor([[2.0, 1.0, -3.0], [-2.0, -1.0, -3.0]])}, labels="abc", config=config)
    assert said.scores[0][0] == ("a", pytest.approx(0.8808, abs=1e-4))
    assert said.sentences[0] == "The model sees a (0.88), b (0.73)."
    assert "none of its labels (highest: b, 0.27)" in said.sentences[1]


def test_logits_that_do_not_fit_the_labels_are_not_named(read):
    assert read({"logits": torch.zeros(2, 4)}, labels=("one", "two")).kind == "shapes"


@pytest.mark.parametrize("level", [0.0, 0.9])
def test_a_flat_prediction_names_no_place(read, level):
    flat = torch.full((1, 20, 30), level)
    flat[0, 3, 4] *= 1.1
    (sentence,) = read(SimpleNamespace(saliency=flat)).sentences
    assert sentence.startswith(f"No place stands out: predicted saliency is {level:.2f} to ")


def test_saliency_points_are_places_of_the_picture_not_of_the_input(read):
    from attnlib.picture import View

    saliency = torch.zeros(1, 40, 80)
    saliency[0, 30:34, 20:24] = 0.9
    view = View((400, 1000), (40, 80), (100.0, 0.0, 900.0, 400.0))
    said = read(SimpleNamespace(saliency=saliency), views=[view])
    assert said.points[0] == pytest.approx((320, 320), abs=20)
    place = f"{said.points[0][0] / 10:.0f} % from the left and {said.points[0][1] / 4:.0f} % from the top"
    assert place in said.sentences[0]
    assert "up to 0.90" in said.sentences[0]


def test_one_bright_pixel_does_not_outweigh_a_bright_place(read):
    saliency = torch.zeros(1, 96, 96)
    saliency[0, 5, 5] = 1.0
    saliency[0, 60:70, 60:70] = 0.8
    x, y = read(SimpleNamespace(saliency=saliency)).points[0]
    assert 58 < x < 72
    assert 58 < y < 72


def test_what_is_not_understood_is_reported_by_its_shapes(read):
    said = read(SimpleNamespace(hidden=torch.zeros(2, 3, 5), odd=None))
    assert said.kind == "shapes"
    assert said.sentences == ("The model returned hidden [2, 3, 5].",) * 2
    assert "does not know" in said.notes[0]
    assert read((torch.zeros(3, 2), "x")).sentences[0] == "The model returned output 0 [3, 2]."
    assert read(None).sentences == ("The model returned NoneType.",)


def test_half_precision_and_gradients_are_no_obstacle(read):
    logits = torch.tensor([[0.0, 2.0]], dtype=torch.bfloat16, requires_grad=True)
    assert read({"logits": logits}, labels="ab").scores[0][0][0] == "b"


def test_a_masked_word_is_filled_in_where_it_stands(read):
    class Tokenizer:
        mask_token_id = 4

        def __len__(self):
            return 6

        def __call__(self, texts, **_):
            return {"input_ids": torch.tensor([[1, 4, 2], [1, 2, 3]]), "attention_mask": torch.ones(2, 3)}

        def decode(self, ids):
            return "abcdef"[ids[0]]

    logits = torch.zeros(2, 3, 6)
    logits[0, 1, 5] = 9
    config = SimpleNamespace(architectures=["BertForMaskedLM"])
    said = read({"logits": logits}, texts=["x", "y"], tokenizer=Tokenizer(), config=config)
    assert said.kind == "masked token"
    assert said.scores[0][0][0] == "f"
    assert said.sentences[1] == "There is no masked word to fill in."
