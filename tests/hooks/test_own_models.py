"""Models as people write them: what is seen of them, and what is said where it cannot be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from attnlib import capture, capturing, explain
from attnlib.errors import CaptureError, InputError, NeedsError


def test_kinds_of_none_are_all_kinds() -> None:
    torch.manual_seed(0)
    model = nn.MultiheadAttention(12, 3, batch_first=True).eval()
    states = torch.randn(2, 5, 12)
    with capturing(model, kinds=None) as record:
        _, expected = model(states, states, states, need_weights=True, average_attn_weights=False)
    torch.testing.assert_close(record.layers[0].weights(), expected)


class Fused(nn.Module):
    """Self-attention whose heads are as wide as asked for."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * heads * head_width)
        self.out = nn.Linear(heads * head_width, width)

    def forward(self, states: Tensor) -> Tensor:
        batch, tokens, _ = states.shape
        query, key, value = self.qkv(states).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        read = functional.scaled_dot_product_attention(query, key, value)
        return self.out(read.transpose(1, 2).reshape(batch, tokens, -1))


def test_as_many_heads_as_tokens_each_as_wide_as_the_states_are_heads_all_the_same() -> None:
    torch.manual_seed(0)
    model, states = Fused(7, 5, 7).eval(), torch.randn(2, 5, 7)
    weights = capture(model, states).layers[0].weights()
    query, key, _ = model.qkv(states).view(2, 5, 3, 5, 7).permute(2, 0, 3, 1, 4)
    torch.testing.assert_close(weights, (query @ key.transpose(-1, -2) / 7**0.5).softmax(-1))


def test_parameters_that_are_made_by_the_first_pass_are_no_obstacle() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.LazyLinear(12), Fused(12, 3, 5)).eval()
    record = capture(model, torch.randn(2, 5, 7), target=lambda output: output[:, 0].sum(-1))
    assert record.layers[0].gradients().shape == (2, 3, 5, 5)


class Waves(nn.Module):
    """Mixes tokens by a Fourier transform, or over channels only."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, states: Tensor) -> Tensor:
        return torch.fft.fft(states, dim=self.axis).real


class Spatial(nn.Module):
    """Mixes tokens by weights that do not depend on them."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(5, 5)

    def forward(self, states: Tensor) -> Tensor:
        return self.mix(states.transpose(1, 2)).transpose(1, 2)


class Between(nn.Module):
    """Two layers of attention with something else between them."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Fused(7, 3, 11), between, Fused(7, 3, 11)])

    def forward(self, states: Tensor) -> Tensor:
        for layer in self.layers:
            states = states + layer(states)
        return states[:, 0]


@pytest.mark.parametrize(
    ("between", "words"), [(Waves(1), "Fourier transform"), (Spatial(), "the same for every input")]
)
def test_what_mixes_tokens_without_attention_between_two_layers_is_a_gap(
    between: nn.Module, words: str
) -> None:
    record = capture(Between(between).eval(), torch.randn(2, 5, 7))
    (gap,) = record.gaps
    assert (gap.name, gap.place) == ("layers.1", 0.5)
    assert words in str(gap)
    with pytest.raises(NeedsError, match=words):
        explain(record, "rollout")


def test_a_fourier_transform_over_channels_is_no_gap() -> None:
    assert not capture(Between(Waves(-1)).eval(), torch.randn(2, 5, 7)).gaps


@pytest.mark.filterwarnings("ignore")  # torch's own, about the future of its quantisation
def test_tokens_are_followed_through_quantised_layers() -> None:
    torch.manual_seed(0)
    cut = nn.Conv2d(3, 7, 5, stride=5)

    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cut = cut
            self.body = Between(nn.Identity())

        def forward(self, pixels: Tensor) -> Tensor:
            return self.body(self.cut(pixels).flatten(2).transpose(1, 2))

    model = torch.ao.quantization.quantize_dynamic(Patches().eval(), {nn.Linear}, dtype=torch.qint8)
    record = capture(model, torch.randn(2, 3, 10, 15))
    assert record.layout.grid == (2, 3)
    assert record.layout.patch_size == (5, 5)


class OneByOne(Fused):
    """The same attention, its heads taken out of the projection by their numbers and computed one by one."""

    def __init__(self, width: int, heads: int, head_width: int, *, fused: bool) -> None:
        super().__init__(width, heads, head_width)
        self.fused = fused

    def forward(self, states: Tensor) -> Tensor:
        batch, tokens, _ = states.shape
        query, key, value = self.qkv(states).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        read = []
        for head in range(self.heads):
            one = query[:, head], key[:, head], value[:, head]
            if self.fused:
                read.append(functional.scaled_dot_product_attention(*one))
            else:
                scores = one[0] @ one[1].transpose(-1, -2) / one[0].shape[-1] ** 0.5
                read.append(scores.softmax(-1) @ one[2])
        return self.out(torch.stack(read, 2).reshape(batch, tokens, -1))


@pytest.mark.parametrize("fused", [True, False])
def test_heads_that_are_computed_one_by_one_are_the_heads_of_one_layer(fused: bool) -> None:
    together, alone = Fused(7, 3, 11).eval(), OneByOne(7, 3, 11, fused=fused).eval()
    alone.load_state_dict(together.state_dict())
    states, score = torch.randn(2, 5, 7), lambda output: output[:, 0].sum(-1)
    expected, record = (capture(model, states, target=score) for model in (together, alone))
    (layer,), (one,) = expected.layers, record.layers
    torch.testing.assert_close(one.weights(), layer.weights())
    torch.testing.assert_close(one.gradients(), layer.gradients())
    assert not record.gaps


class Written(Fused):
    """Self-attention whose weighted sum is written in another way."""

    def forward(self, states: Tensor) -> Tensor:
        batch, tokens, _ = states.shape
        query, key, value = self.qkv(states).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.out(self.read(query, key, value).transpose(1, 2).reshape(batch, tokens, -1))

    def read(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        weights = (query @ key.transpose(-1, -2)).softmax(-1)
        return (weights[..., None] * value[:, :, None]).sum(3)


def test_a_weighted_sum_by_broadcasting_is_refused_by_what_it_is() -> None:
    model = nn.Sequential()
    model.add_module("attention", Written(7, 3, 11))
    with pytest.raises(CaptureError, match="a weighted sum by broadcasting"):
        capture(model.eval(), torch.randn(2, 5, 7))


class Blanked(Written):
    """Self-attention whose first row sees nothing, and is set to 0 by the model itself."""

    def read(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores = query @ key.transpose(-1, -2)
        hidden = torch.arange(scores.shape[-2])[:, None] == 0
        return scores.masked_fill(hidden, -torch.inf).softmax(-1).nan_to_num(0.0) @ value


def test_rows_that_a_model_sets_to_0_are_reported_as_fully_masked() -> None:
    layer = capture(Blanked(7, 3, 11).eval(), torch.randn(2, 5, 7)).layers[0]
    sums = layer.weights().sum(-1)
    assert torch.equal(sums[:, :, 0], torch.zeros(2, 3))
    torch.testing.assert_close(sums[:, :, 1:], torch.ones(2, 3, 4))
    assert layer.notes == ("6 rows are fully masked: their weights are 0",)


def test_patches_that_a_late_class_token_gathers_are_said_to_be_read_through_it() -> None:
    cait = pytest.importorskip("timm.models.cait")
    torch.manual_seed(0)
    model = cait.Cait(img_size=12, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=5).eval()
    layout = capture(model, torch.randn(2, 3, 12, 12)).layout
    assert layout.readout == "patches"
    assert "through a class token that joins behind these layers" in str(layout)


def test_a_batch_of_nothing_is_said_to_be_nothing() -> None:
    model = nn.TransformerEncoderLayer(12, 3, 24, batch_first=True).eval()
    with pytest.raises(CaptureError, match="attention over nothing \\(0 items"):
        capture(model, torch.randn(0, 5, 12))


def test_a_target_function_that_returns_the_whole_output_is_told_what_to_return() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = Fused(7, 3, 11)

        def forward(self, states: Tensor) -> dict[str, Tensor]:
            return {"logits": self.attention(states)[:, 0]}

    with pytest.raises(InputError, match=r"must return a tensor \[batch\].* got dict"):
        capture(Named().eval(), torch.randn(2, 5, 7), target=lambda output: output)


@pytest.mark.parametrize("size", [(2, 5), (5, 2), (3, 3)])
def test_items_are_found_also_where_a_model_turns_them_for_its_attention(size: tuple[int, int]) -> None:
    class Turning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before = nn.Linear(7, 12)
            self.attention = nn.MultiheadAttention(12, 3)

        def forward(self, states: Tensor) -> Tensor:
            states = self.before(states)
            turned = states.transpose(0, 1)
            read = self.attention(turned, turned, turned, need_weights=False)[0]
            return (states + read.transpose(0, 1))[:, 0]

    torch.manual_seed(0)
    model, states = Turning().eval(), torch.randn(*size, 7)
    turned = model.before(states).transpose(0, 1)
    _, expected = model.attention(turned, turned, turned, average_attn_weights=False)
    record = capture(model, states, target=lambda output: output.sum(-1))
    torch.testing.assert_close(record.layers[0].weights(), expected)
    assert record.layout.num_tokens == size[1]
    assert record.layout.readout == (0,)


def test_items_are_found_where_a_class_token_is_put_before_the_turn() -> None:
    class Classed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Parameter(torch.randn(1, 1, 12))
            self.layers = nn.TransformerEncoder(
                nn.TransformerEncoderLayer(12, 2, 17), 2, enable_nested_tensor=False
            )

        def forward(self, states: Tensor) -> Tensor:
            whole = torch.cat([self.first.expand(len(states), -1, -1), states], 1)
            return self.layers(whole.transpose(0, 1))[0]

    record = capture(Classed().eval(), torch.randn(2, 5, 12), target=lambda output: output.sum(-1))
    assert [layer.weights().shape for layer in record.layers] == [(2, 2, 6, 6)] * 2
    assert record.layout.readout == (0,)
