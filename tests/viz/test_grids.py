"""Figures over layers and heads, and the profile they draw."""

import numpy as np
import pytest
import torch


def test_layers_and_heads_shows_every_value_at_its_layer_and_head():
    from attnlib.viz import layers_and_heads

    maps = torch.rand(3, 2, 5, 7, dtype=torch.float64)
    heat = layers_and_heads(maps, layers=[4, 6, 11], heads=[1, 5]).data[0]
    assert heat.z.shape == (3 * 6 - 1, 2 * 8 - 1)
    for row, column in np.ndindex(heat.z.shape):
        layer, head, y, x = heat.customdata[row, column].tolist()
        if layer >= 0:
            place = [4, 6, 11].index(layer), [1, 5].index(head), y, x
            assert heat.z[row, column] == float(maps[place])
        else:
            assert np.isnan(heat.z[row, column])
    assert heat.zmax == pytest.approx(float(maps.max()))


def test_layers_and_heads_refuses_labels_that_do_not_fit():
    from attnlib.errors import InputError
    from attnlib.viz import layers_and_heads

    with pytest.raises(InputError, match="2 layers were named for 3"):
        layers_and_heads(torch.rand(3, 2, 5, 7), layers=[0, 1])


def test_attention_matrix_of_identity_is_identity_with_its_names():
    from attnlib import TokenLayout
    from attnlib.viz import attention_matrix

    figure = attention_matrix(torch.eye(7), layout=TokenLayout((2, 3), 14, 1, 0))
    assert np.array_equal(figure.data[0].z, np.eye(7))
    assert figure.layout.xaxis.ticktext[0] == "class"
    assert figure.layout.xaxis.ticktext[6] == "patch (1, 2)"


@pytest.fixture
def record():
    """Three layers with two heads: uniform, own patch only, class token only."""
    from attnlib import AttentionRecord, TokenLayout

    tokens = 1 + 5 * 7
    uniform = torch.full((1, 2, tokens, tokens), 1 / tokens)
    own = torch.eye(tokens).expand(1, 2, tokens, tokens).clone()
    first = torch.zeros(1, 2, tokens, tokens)
    first[..., 0] = 1
    layout = TokenLayout((5, 7), 14, 1, 0)
    return AttentionRecord.from_weights([uniform, own, first], layout=layout)


def test_profile_of_uniform_identity_and_class_only_attention_is_known(record):
    from attnlib.profiles import layer_profile

    profile = layer_profile(record, max_rows=None)
    assert profile.entropy[0, :, 0].tolist() == pytest.approx([1, 0, 0], abs=1e-6)
    assert profile.prefix_share[0, :, 1].tolist() == pytest.approx([1 / 36, 0, 1])
    rows, columns = np.divmod(np.arange(35), 7)
    apart = np.hypot(rows[:, None] - rows, columns[:, None] - columns)
    assert profile.even_distance == pytest.approx(apart.mean(), rel=1e-5)
    assert profile.distance[0, :, 0].tolist() == pytest.approx([apart.mean(), 0, 0], rel=1e-5)
    assert profile.rows == "all patches"


def test_profile_on_some_rows_is_the_mean_over_these_rows():
    from attnlib import AttentionRecord, TokenLayout
    from attnlib.profiles import layer_profile

    torch.manual_seed(2)
    weights = torch.softmax(torch.randn(2, 3, 36, 36, dtype=torch.float64) * 3, dim=-1)
    record = AttentionRecord.from_weights([weights], layout=TokenLayout((5, 7), 14, 1, 0))
    profile = layer_profile(record, max_rows=5)
    rows = 1 + np.linspace(0, 34, 5).round().astype(int)
    entropy = -(weights * weights.log()).sum(-1)[:, :, rows].mean(-1) / np.log(36)
    torch.testing.assert_close(profile.entropy[:, 0], entropy)
    assert profile.rows == "5 of 35 patches, evenly spaced"


def test_padding_is_no_row_of_a_profile():
    from dataclasses import replace

    from attnlib import AttentionRecord, TokenLayout
    from attnlib.profiles import layer_profile

    weights = torch.eye(36).expand(2, 3, 36, 36).clone()
    weights[1, :, 15:] = 1 / 36  # what a padded row says is nobody's attention
    plain = AttentionRecord.from_weights([weights], layout=TokenLayout((5, 7), 14, 1, 0))
    seen = torch.ones(2, 36, dtype=torch.bool)
    seen[1, 15:] = False
    profile = layer_profile(replace(plain, seen={plain.layers[0].stream: seen}), max_rows=None)
    torch.testing.assert_close(profile.entropy, torch.zeros(2, 1, 3))
    torch.testing.assert_close(profile.distance, torch.zeros(2, 1, 3))
    assert layer_profile(plain, max_rows=None).entropy[1].min() > 0.5


def test_profile_refuses_text(record):
    from attnlib import AttentionRecord
    from attnlib.errors import LayoutError
    from attnlib.profiles import layer_profile

    with pytest.raises(LayoutError, match="grid"):
        layer_profile(AttentionRecord.from_weights([torch.eye(3).expand(1, 2, 3, 3)]))


def test_profile_figure_and_chart_draw_the_numbers_of_the_profile(record):
    from attnlib.profiles import layer_profile
    from attnlib.viz import profile_figure, profile_svg

    profile = layer_profile(record)
    figure = profile_figure(profile)
    assert figure.data[1].y.tolist() == profile.entropy[0, :, 1].tolist()
    chart = profile_svg(profile)
    assert chart.markup.count("<circle") == 3 * 3 * 2
    assert "layer 2, head 1: 1.000" in chart.markup
    assert profile.to_frame().shape == (6, 6)
