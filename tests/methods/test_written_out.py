"""Every method that works on attention and its gradients, against loops in numpy, item by item, in float64."""

import numpy as np
import pytest
import torch

PREFIXES = ((), ("class",), ("class", "distillation"), ("class", *(f"register {i}" for i in range(4))))
CASES = [  # prefix tokens, grid, batch, heads, layers, seed
    (PREFIXES[0], (5, 7), 3, 2, 3, 1),
    (PREFIXES[1], (2, 3), 1, 5, 2, 2),
    (PREFIXES[2], (4, 3), 2, 3, 4, 3),
    (PREFIXES[3], (3, 5), 2, 4, 3, 4),
]


@pytest.fixture(params=CASES, ids=lambda case: f"{len(case[0])} prefix tokens, {case[1][0]}x{case[1][1]}")
def case(request):
    """A record, and its weights and gradients as arrays [layer, batch, head, query, key]."""
    from attnlib import AttentionRecord, TokenLayout

    prefix, grid, batch, heads, layers, seed = request.param
    layout = TokenLayout(grid, 4, prefix, readout=[0] if prefix else "patches")
    rng = np.random.default_rng(seed)
    size = layout.num_tokens
    weights = rng.random((layers, batch, heads, size, size)) ** 4
    weights /= weights.sum(axis=-1, keepdims=True)
    slopes = rng.normal(size=weights.shape)
    record = AttentionRecord.from_weights(
        [torch.tensor(one) for one in weights], gradients=[torch.tensor(one) for one in slopes], layout=layout
    )
    return record, weights, slopes


def rows_of(layout):
    """Name -> the query, and the rows that it means."""
    first = layout.num_prefix_tokens
    patches = list(range(first, layout.num_tokens))
    made = {
        "readout": (None, list(layout.readout_indices)),
        "patch": ((1, 2), [first + layout.grid[1] + 2]),
        "last": (-1, [layout.num_tokens - 1]),
        "mean": ("mean", patches),
        "list": ([first, (0, 1)], [first, first + 1]),
    }
    if first:
        made["by name"] = (layout.prefix_tokens[-1], [first - 1])
    return made


def agree(case, method, matrix_of, **options):
    """Compare every kind of query, and all rows, with the rows of a matrix written out for each item."""
    from attnlib import explain

    record, weights, slopes = case
    whole = np.stack([matrix_of(weights[:, i], slopes[:, i]) for i in range(weights.shape[1])])
    every = explain(record, method, query="all", **options).scores
    np.testing.assert_allclose(every.numpy(), whole, rtol=1e-10, atol=1e-14)
    for name, (query, rows) in rows_of(record.layout).items():
        found = explain(record, method, query=query, **options)
        wanted = whole[:, rows].mean(axis=1)
        np.testing.assert_allclose(found.scores.numpy(), wanted, rtol=1e-10, atol=1e-14, err_msg=name)
        picture = wanted[:, record.layout.num_prefix_tokens :].reshape(-1, *record.layout.grid)
        np.testing.assert_allclose(found.heatmap().numpy(), picture, rtol=1e-10, atol=1e-14)
    own = [int(i) % record.layout.num_tokens for i in range(3, 3 + len(whole))]
    found = explain(record, method, query=torch.tensor(own), **options).scores
    np.testing.assert_allclose(found.numpy(), whole[range(len(whole)), own], rtol=1e-10, atol=1e-14)


def fused(weights, fusion, heads=None):
    chosen = weights if heads is None else weights[heads]
    return {"mean": np.mean, "max": np.max, "min": np.min}[fusion](chosen, axis=0)


def product(layers):
    total = np.eye(len(layers[0]))
    for one in layers:
        total = one @ total
    return total


def row_divided(matrix, share):
    mixed = (1 - share) * matrix + share * np.eye(len(matrix))
    total = mixed.sum(axis=1, keepdims=True)
    return np.divide(mixed, total, out=np.zeros_like(mixed), where=total != 0)


def column_divided(matrix, share=0.5):
    """As published: a / a.sum(-1) without keepdim."""
    mixed = (1 - share) * matrix + share * np.eye(len(matrix))
    return mixed / mixed.sum(axis=1)[None, :]


def thinned(matrix, ratio, protect):
    flat = matrix.flatten()
    lowest = np.argsort(flat)[: int(flat.size * ratio)]
    flat[[i for i in lowest if not (protect and i == 0)]] = 0
    return flat.reshape(matrix.shape)


@pytest.mark.parametrize("fusion", ["mean", "max", "min"])
def test_raw(case, fusion):
    agree(case, "raw", lambda w, g: fused(w[-1], fusion), head_fusion=fusion)
    agree(case, "raw", lambda w, g: fused(w[0], fusion, [1, 0]), head_fusion=fusion, layers=0, heads=[1, 0])
    agree(case, "raw", lambda w, g: np.mean([fused(w[i], fusion) for i in (0, 1)], axis=0), layers=[0, 1],
          head_fusion=fusion)  # fmt: skip


@pytest.mark.parametrize("fusion", ["mean", "max", "min"])
@pytest.mark.parametrize(
    ("share", "ratio", "start"), [(0.5, 0, 0), (0.2, 0.3, 0), (0, 0.9, 1), (1, 1, 0), (0, 1, 0)]
)
def test_rollout(case, fusion, share, ratio, start):
    def matrix(w, g):
        return product([row_divided(thinned(fused(one, fusion), ratio, True), share) for one in w[start:]])

    agree(
        case,
        "rollout",
        matrix,
        head_fusion=fusion,
        residual_weight=share,
        discard_ratio=ratio,
        start_layer=start,
    )


def test_rollout_as_other_code_does_it(case):
    eye = np.eye(case[1].shape[-1])
    agree(case, "rollout", lambda w, g: product([column_divided(thinned(fused(one, "max"), 0.6, True)) for one in w]),
          variant="vit-explain", head_fusion="max", discard_ratio=0.6)  # fmt: skip
    agree(
        case, "rollout", lambda w, g: product([fused(one, "mean") + eye for one in w]), variant="chefer-vit"
    )
    agree(case, "rollout", lambda w, g: product([fused(one, "min") / 2 + eye / 2 for one in w]),
          variant="rollout-matrix-literal", head_fusion="min")  # fmt: skip


@pytest.mark.parametrize("ratio", [0, 0.7])
def test_gradient_rollout(case, ratio):
    def mixed(w, g, divided, partner=None):
        made = []
        for depth in range(len(w)):
            slope = g[depth]
            if partner:
                other = w[len(w) - 1 - depth], g[len(w) - 1 - depth]
                slope = other[0] * (other[1] - (other[0] * other[1]).sum(axis=-1, keepdims=True))
            weighted = np.maximum((w[depth] * slope).mean(axis=0), 0)
            made.append(divided(thinned(weighted, ratio, False), 0.5))
        return product(made)

    agree(case, "gradient_rollout", lambda w, g: mixed(w, g, row_divided), discard_ratio=ratio)
    agree(case, "gradient_rollout", lambda w, g: mixed(w, g, column_divided), discard_ratio=ratio,
          variant="vit-explain-function")  # fmt: skip
    agree(case, "gradient_rollout", lambda w, g: mixed(w, g, column_divided, True), discard_ratio=ratio,
          variant="vit-explain")  # fmt: skip


def test_generic_relevance(case):
    def matrix(w, g, start=0):
        total = np.eye(w.shape[-1])
        for weight, slope in zip(w[start:], g[start:], strict=True):
            total = total + np.maximum(weight * slope, 0).mean(axis=0) @ total
        return total

    agree(case, "generic_relevance", matrix)
    agree(case, "generic_relevance", lambda w, g: matrix(w, g, 1), start_layer=1)
    agree(case, "generic_relevance", lambda w, g: matrix(w, g, -1), variant="chefer-clip-notebook")
    agree(case, "generic_relevance", lambda w, g: matrix(w, g, -1), start_layer=-1)


@pytest.mark.parametrize("positive", [False, True])
def test_attention_gradient(case, positive):
    def matrix(w, g, layers):
        made = w[layers] * g[layers]
        return (np.maximum(made, 0) if positive else made).mean(axis=(0, 1))

    agree(case, "attention_gradient", lambda w, g: matrix(w, g, [-1]), positive=positive)
    every = list(range(len(case[1])))
    agree(case, "attention_gradient", lambda w, g: matrix(w, g, every), positive=positive, layers=every)


def test_attention_grad_cam(case):
    first = case[0].layout.num_prefix_tokens

    def by_matrix(w, g):
        return np.maximum((w[-1] * g[-1].mean(axis=(1, 2), keepdims=True)).mean(axis=0), 0)

    def by_row(w, g):
        return np.maximum((w[1] * g[1][:, :, first:].mean(axis=2, keepdims=True)).mean(axis=0), 0)

    agree(case, "attention_grad_cam", by_matrix)
    agree(case, "attention_grad_cam", by_row, gradient_mean="row", layers=1)


def test_legrad(case):
    from attnlib import explain

    record, _, slopes = case
    for layers in (None, [-2, -1], 0):
        chosen = slopes[[layers] if layers == 0 else layers or slice(None)]
        wanted = np.maximum(chosen, 0).mean(axis=(0, 2, 3))
        found = explain(record, "legrad", layers=layers)
        np.testing.assert_allclose(found.scores.numpy(), wanted, rtol=1e-10)


def test_flow_is_between_rollout_and_its_bound(case):
    from attnlib import explain

    record = case[0]
    below = explain(record, "rollout", query=1).scores
    exact = explain(record, "flow", query=1, solver="cut").scores
    above = explain(record, "flow", query=1, solver="bound").scores
    assert (below <= exact + 1e-9).all()
    assert (exact <= above + 1e-9).all()
    assert (above <= 1 + 1e-9).all()


def test_baselines(case):
    from attnlib import explain

    record, weights, _ = case
    layout = record.layout
    height, width = layout.grid
    even = explain(record, "uniform").heatmap().numpy()
    np.testing.assert_allclose(
        even, np.full((weights.shape[1], height, width), 1 / (height * width)), rtol=1e-6
    )
    made = np.array([[np.exp(-(((r + 0.5) / height - 0.5) ** 2 + ((c + 0.5) / width - 0.5) ** 2) / (2 * 0.3**2))
                      for c in range(width)] for r in range(height)])  # fmt: skip
    centre = explain(record, "centre", width=0.3).heatmap().numpy()
    np.testing.assert_allclose(centre, np.broadcast_to(made / made.sum(), centre.shape), rtol=1e-5)
    noise = explain(record, "random", seed=7)
    assert not torch.equal(noise.scores, explain(record, "random", seed=11).scores)
    assert torch.equal(noise.scores, explain(record, "random", seed=7).scores)
    prefix = noise.scores[:, : layout.num_prefix_tokens]
    assert float(prefix.abs().sum()) == 0
