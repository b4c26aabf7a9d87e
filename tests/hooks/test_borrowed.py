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


def picture_model():
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
    return transformers.Dinov2Model(transformers.Dinov2Config(**sizes, image_size=24, patch_size=8)).eval()


def test_hooks_that_the_library_puts_in_for_hidden_states_are_taken_out_again():
    from attnlib import capture
    from attnlib.evaluate import token_norms

    model, inputs = picture_model(), {"pixel_values": torch.rand(2, 3, 24, 24)}
    layout = capture(model, inputs).layout
    before = state(model)
    norms = token_norms(model, inputs, layout)
    same(before, state(model))
    with torch.no_grad():
        assert len(model(**inputs, output_hidden_states=True).hidden_states) == 3
    before = state(model)
    assert torch.equal(norms, token_norms(model, inputs, layout))
    same(before, state(model))


def test_looking_for_what_the_head_reads_changes_nothing_in_other_threads():
    from attnlib import capture
    from attnlib.hooks import probe_readout

    model, pixels = picture_model(), torch.rand(2, 3, 24, 24)
    alone = capture(model, {"pixel_values": pixels}, target=lambda output: output.pooler_output[:, 0])
    found = []

    def meanwhile(*_):
        handle.remove()
        other = threading.Thread(
            target=lambda: found.append(
                capture(model, {"pixel_values": pixels}, target=lambda output: output.pooler_output[:, 0])
            )
        )
        other.start()
        other.join()

    handle = model.layernorm.register_forward_pre_hook(meanwhile)  # the probe has cut the graph before it
    last = alone.layers[-1].name
    assert probe_readout(model, (), {"pixel_values": pixels}, last, 10)
    for one, two in zip(found[0].layers, alone.layers, strict=True):
        torch.testing.assert_close(one.gradients(), two.gradients())


@pytest.mark.parametrize("reentrant", [False, True])
def test_parts_that_autograd_runs_again_on_its_way_back_are_no_calls(reentrant):
    from torch.utils.checkpoint import checkpoint

    from attnlib import capturing

    class Saving(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.blocks = nn.ModuleList(
                nn.TransformerEncoderLayer(12, 3, 17, batch_first=True) for _ in range(2)
            )
            self.saves = False

        def forward(self, x):
            for block in self.blocks:
                x = checkpoint(block, x, use_reentrant=reentrant) if self.saves else block(x)
            return x[:, 0]

    model, x = Saving().eval(), torch.rand(2, 5, 12, requires_grad=True)
    for model.saves in (False, True):
        with capturing(model) as record:
            model(x).square().sum().backward()
        assert len(record.layers) == 2


def test_compilation_is_as_before_when_captures_of_two_threads_overlap(model):
    from torch._dynamo import eval_frame

    from attnlib import capturing

    before, opened, closed = eval_frame._stance, threading.Event(), threading.Event()

    def other():
        with capturing(model):
            model(input_ids=ids())
            opened.set()
            closed.wait(60)

    thread = threading.Thread(target=other)
    with capturing(model):
        model(input_ids=ids())
        thread.start()
        opened.wait(60)
    assert eval_frame._stance.stance == "force_eager"  # the other one is still at work
    closed.set()
    thread.join()
    assert eval_frame._stance == before


def test_threads_that_start_and_stop_while_others_run_the_model_do_not_disturb_them(model):
    from attnlib import capture

    sizes = range(4, 8)
    alone = {size: capture(model, {"input_ids": ids(size)}, target=1).layers[0].gradients() for size in sizes}
    found = {size: [] for size in sizes}

    def run(size):
        for _ in range(4):
            found[size].append(capture(model, {"input_ids": ids(size)}, target=1).layers[0].gradients())

    threads = [threading.Thread(target=run, args=(size,)) for size in sizes]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    for size in sizes:
        assert len(found[size]) == 4  # none ended with an error
        for one in found[size]:
            torch.testing.assert_close(one, alone[size])


def test_checkpoints_give_the_gradients_of_the_model_or_a_way_out():
    timm = pytest.importorskip("timm")

    from attnlib import capture
    from attnlib.errors import NeedsError

    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 3, "num_classes": 5}
    model = timm.models.VisionTransformer(**sizes).eval()
    pixels = torch.rand(2, 3, 32, 32)
    plain = capture(model, pixels, target=3)
    model.set_grad_checkpointing(True)
    saving = capture(model, pixels, target=3)
    for one, other in zip(saving.layers, plain.layers, strict=True):
        torch.testing.assert_close(one.gradients(), other.gradients())
    model.requires_grad_(False)
    with pytest.raises(NeedsError, match="set_grad_checkpointing"):
        capture(model, pixels, target=3)


def test_a_graph_that_another_backward_pass_used_up_is_named(model):
    from attnlib import capturing
    from attnlib.errors import NeedsError

    with capturing(model, gradients=True) as record:
        score = model(input_ids=ids()).logits[:, 1].sum()
    score.backward()
    with pytest.raises(NeedsError, match="retain_graph"):
        record.differentiate(score)
    model.zero_grad(set_to_none=True)
