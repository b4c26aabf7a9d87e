"""The model is given back exactly as it came, whatever happens in between."""

import threading

import pytest
import torch
from torch import nn


@pytest.fixture
def model():
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=31, vocab_size=61
    )
    return transformers.BertForSequenceClassification(config).eval()


def ids(length=7, batch=2):
    return torch.randint(5, 60, (batch, length), generator=torch.Generator().manual_seed(1))


def state(model):
    hooks = [
        (name, len(one._forward_hooks), len(one._forward_pre_hooks), len(one._backward_hooks), one.training)
        for name, one in model.named_modules()
    ]
    flags = [
        (name, one.requires_grad, one.grad is None, one.detach().clone())
        for name, one in model.named_parameters()
    ]
    return hooks, flags, model.config._attn_implementation, sorted(vars(model))


def same(before, after):
    assert before[0] == after[0]
    assert before[2:] == after[2:]
    for one, two in zip(before[1], after[1], strict=True):
        assert one[:3] == two[:3]
        assert torch.equal(one[3], two[3])
    assert torch.overrides._get_current_function_mode_stack() == []


def test_model_is_unchanged_after_capture_with_and_without_target(model):
    from attnlib import capture

    before = state(model)
    capture(model, {"input_ids": ids()})
    capture(model, {"input_ids": ids()}, target=1)
    same(before, state(model))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_model_is_unchanged_when_the_forward_raises(model, error):
    from attnlib import capture

    def fail(*_):
        raise error("stop")

    handle = model.bert.encoder.layer[1].register_forward_hook(fail)
    before = state(model)
    with pytest.raises(error, match="stop"):
        capture(model, {"input_ids": ids()}, target=0)
    same(before, state(model))
    handle.remove()
    assert len(capture(model, {"input_ids": ids()}).layers) == 2


def test_nested_captures_see_the_same_and_leave_nothing(model):
    from attnlib import capturing

    before = state(model)
    with capturing(model) as outer:
        with capturing(model) as inner:
            model(input_ids=ids())
        assert len(inner.layers) == 2
    assert len(outer.layers) == 2
    torch.testing.assert_close(outer.layers[1].weights(), inner.layers[1].weights())
    same(before, state(model))


def test_threads_do_not_mix(model):
    from attnlib import capturing

    barrier, found = threading.Barrier(2), {}

    def run(length):
        with capturing(model) as record:
            barrier.wait(timeout=60)
            model(input_ids=ids(length))
            barrier.wait(timeout=60)
        found[length] = [one.num_keys for one in record.layers]

    threads = [threading.Thread(target=run, args=(length,)) for length in (5, 11)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert found == {5: [5, 5], 11: [11, 11]}


def test_other_torch_work_in_the_block_is_left_alone(model):
    from attnlib import capturing

    with capturing(model) as record:
        torch.softmax(torch.randn(3, 5, 5), -1) @ torch.randn(3, 5, 2)
        model(input_ids=ids())
    assert len(record.layers) == 2


def test_gradients_work_with_frozen_parameters_and_leave_grad_alone(model):
    from attnlib import capture

    free = capture(model, {"input_ids": ids()}, target=1).layers[0].gradients()
    for one in model.parameters():
        one.requires_grad_(False)
    frozen = capture(model, {"input_ids": ids()}, target=1).layers[0].gradients()
    torch.testing.assert_close(free, frozen)
    assert all(one.grad is None for one in model.parameters())


def test_inference_mode_with_gradients_is_a_clear_error(model):
    from attnlib import capturing
    from attnlib.errors import NeedsError

    with (
        torch.inference_mode(),
        pytest.raises(NeedsError, match="inference_mode"),
        capturing(model, gradients=True),
    ):
        pass


def test_active_dropout_is_refused(model):
    from attnlib import capture
    from attnlib.errors import CaptureError

    with pytest.raises(CaptureError, match=r"model\.eval"):
        capture(model.train(), {"input_ids": ids()})
    assert model.training


def test_compiled_models_run_their_own_code(model):
    from attnlib import capture

    plain = capture(model, {"input_ids": ids()})
    compiled = torch.compile(model, backend="eager")
    record = capture(compiled, {"input_ids": ids()})
    torch.testing.assert_close(record.layers[1].weights(), plain.layers[1].weights())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_models_are_refused():
    from attnlib import capture
    from attnlib.errors import AttnlibError

    scripted = torch.jit.trace(nn.Linear(3, 5), torch.randn(2, 3))
    with pytest.raises(AttnlibError, match="script"):
        capture(scripted, torch.randn(2, 3))


def test_limits_hold_at_capture_time(model):
    from attnlib import capture
    from attnlib.errors import BudgetError, InputError

    whole = capture(model, {"input_ids": ids()})
    part = capture(model, {"input_ids": ids()}, layers=-1, heads=[2, 0])
    assert [one.index for one in part.layers] == [1]
    torch.testing.assert_close(part.layers[0].weights(heads=2), whole.layers[1].weights(heads=2))
    assert part.layers[0].num_heads == 3
    with pytest.raises(InputError, match="not captured"):
        part.layers[0].weights(heads=1)
    with pytest.raises(BudgetError, match=r"MB.*layers="):
        capture(model, {"input_ids": ids()}, max_memory=2000)
    for wrong in ({"layers": []}, {"heads": []}, {"heads": [7]}, {"layers": [9]}):
        with pytest.raises(InputError):
            capture(model, {"input_ids": ids()}, **wrong)


def test_targets_are_index_name_list_or_function(model):
    from attnlib import capture
    from attnlib.errors import InputError

    model.config.id2label = {0: "dull", 1: "bright"}
    one = capture(model, {"input_ids": ids()}, target=1).layers[0].gradients()
    for target in ("bright", [1, 1], lambda output: output.logits[:, 1]):
        torch.testing.assert_close(
            capture(model, {"input_ids": ids()}, target=target).layers[0].gradients(), one
        )
    for wrong in ("dark", 5, [1]):
        with pytest.raises(InputError):
            capture(model, {"input_ids": ids()}, target=wrong)
