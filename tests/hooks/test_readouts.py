"""Which tokens the head reads, where that is another place in each item."""

import pytest
import torch


@pytest.fixture(scope="module")
def speaker():
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=60, hidden_size=24, num_attention_heads=3, num_hidden_layers=2, intermediate_size=13,
        eos_token_id=59, max_position_embeddings=31,
    )  # fmt: skip
    ids = torch.tensor([[1, 4, 5, 59, 0, 0, 0], [1, 4, 5, 6, 7, 59, 0]])
    return CLIPTextModel(config).eval(), {"input_ids": ids, "attention_mask": (ids != 0).long()}


def test_every_item_is_read_at_the_end_of_its_own_text(speaker):
    from attnlib import TokenLayout, capture, explain
    from attnlib.errors import LayoutError

    model, inputs = speaker
    record = capture(model, inputs)
    assert record.layout.item_readouts == ((3,), (5,))
    with pytest.raises(LayoutError, match=r"another place in each item.*item 1: token 5"):
        _ = record.layout.readout_indices
    assert TokenLayout.from_dict(record.layout.to_dict()) == record.layout
    both = explain(record, "rollout").scores
    for item, token in enumerate((3, 5)):
        one = capture(model, {key: value[item : item + 1] for key, value in inputs.items()})
        assert one.layout.readout == (token,)
        torch.testing.assert_close(explain(one, "rollout").scores[0], both[item], rtol=1e-5, atol=1e-7)


def test_what_the_head_reads_is_asked_once_until_the_model_changes(tiny):
    from attnlib import capture

    model = tiny("DeiTForImageClassificationWithTeacher", image_size=28, patch_size=14, num_labels=3)
    passes = []
    model.deit.register_forward_hook(lambda *_: passes.append(1))
    pixels = torch.rand(1, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    assert capture(model, pixels).layout.readout_indices == (0, 1)  # the mean of two heads
    assert len(passes) == 2
    assert capture(model, pixels).layout.readout_indices == (0, 1)
    assert len(passes) == 3
    with torch.no_grad():
        model.distillation_classifier.weight[:] = 0
    assert capture(model, pixels).layout.readout_indices == (0,)
    assert len(passes) == 5


@pytest.mark.parametrize("pixels", [(1, 3, 28, 42), (3, 3, 42, 28)])
def test_a_head_that_reads_class_and_mean_patch_side_by_side_costs_no_second_pass(tiny, pixels):
    from attnlib import capture
    from attnlib.hooks import probe_readout

    model = tiny("Dinov2ForImageClassification", image_size=28, patch_size=14, num_labels=3)
    inputs = torch.rand(pixels, generator=torch.Generator().manual_seed(1))
    passes = []
    handle = model.dinov2.register_forward_hook(lambda *_: passes.append(1))
    record = capture(model, inputs)
    handle.remove()
    assert len(passes) == 1
    asked = probe_readout(model, (inputs,), {}, record.layers[-1].name, record.layout.num_tokens)
    assert list(record.layout.readout_indices) == asked == list(range(7))
