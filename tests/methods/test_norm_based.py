"""Norm-based analysis, GlobEnc and ALTI against the reference values and a dense oracle."""

import pytest
import torch
from torch.testing import assert_close


@pytest.fixture(scope="module")
def bert(load):
    from attnlib import capture

    model, inputs, values = load("bert", "BertForSequenceClassification")
    return capture(model, inputs, internals=True), values


def dense(layer, part):
    """Every vector T_i(x_j), formed in full, from the model's own parts."""
    block = layer.internals
    heads = layer.values().shape[1]
    split = block.output.weight.unflatten(1, (heads, -1))
    sent = torch.einsum("bhij,bhjv,dhv->bijd", layer.weights(), layer.values(), split)
    if part != "attention":
        sent = sent + torch.diag_embed(block.residual.transpose(1, 2)).permute(0, 2, 3, 1)
    norms = {"norm": [(block.norm, block.total)], "encoder": [(block.norm, block.total)]}.get(part, [])
    if part == "encoder":
        norms = [*norms, (block.second_norm, block.second_total)]
    for norm, total in norms:
        if norm is not None:
            centred = (sent - sent.mean(dim=-1, keepdim=True)) * norm.gain
            sent = centred / (total.var(dim=-1, unbiased=False) + norm.eps).sqrt()[:, :, None, None]
    return sent


@pytest.mark.parametrize(("include", "key"), [("attention", "N"), ("residual", "N_Res"), ("norm", "N_ResLN")])
def test_norms_equal_the_published_ones(bert, include, key):
    from attnlib import explain

    record, values = bert
    for layer in range(4):
        got = explain(record, "attention_norm", query="all", layers=layer, include=include).scores
        for expected in (values["expected"][f"kobayashi2021.{key}"], values["globenc"][key]):
            assert_close(got, torch.tensor(expected[layer]), rtol=1e-10, atol=1e-11)
    if include == "attention":
        assert_close(
            got, torch.tensor(values["expected"]["kobayashi2020.summed_afx_norm"][3]), rtol=1e-10, atol=0
        )


def test_globenc_equals_the_published_product_layer_by_layer(bert):
    from attnlib import explain

    record, values = bert
    for depth in range(4):
        layers = list(range(depth + 1))
        for key, normalise in (("rollout", False), ("row_normalised_rollout", True)):
            got = explain(record, "globenc", query="all", layers=layers, normalise=normalise).scores
            assert_close(got, torch.tensor(values["globenc"][key][depth]), rtol=1e-10, atol=1e-11)
    real = torch.tensor(values["globenc"]["model_output"])
    assert_close(
        got[0], torch.tensor(values["globenc"]["row_normalised_rollout"][3][0]), rtol=1e-10, atol=1e-11
    )
    unnormalised = explain(record, "globenc", query="all").scores
    padded = real.abs().sum(dim=-1) == 0
    assert padded.any()
    assert_close(unnormalised[~padded], real[~padded], rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize(("sample", "length"), [(0, 11), (1, 7)])
def test_alti_equals_the_paper_and_its_variant_the_published_code(load, sample, length):
    from attnlib import capture, explain

    model, inputs, values = load("bert", "BertForSequenceClassification")
    one = {name: value[sample : sample + 1, :length] for name, value in inputs.items()}
    record = capture(model, one, internals=True)
    found = {
        name.split(".", 2)[2]: v
        for name, v in values["expected"].items()
        if name.startswith(f"alti.sample{sample}.")
    }
    code = {"variant": "transformer-contributions"}
    asked = [
        ("as_published.rollout", {}),
        ("rollout", code),
        ("rollout_l2", {**code, "norm": "l2"}),
        ("rollout_ln2", {**code, "include": "encoder"}),
    ]
    for key, options in asked:
        for depth in range(4):
            got = explain(record, "alti", query="all", layers=list(range(depth + 1)), **options).scores[0]
            assert_close(got, torch.tensor(found[key][depth]), rtol=1e-9, atol=1e-11)
    for layer in range(4):
        got = explain(record, "alti", query="all", layers=layer).scores[0]
        assert_close(got, torch.tensor(found["as_published.contributions"][layer]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("vit", "ViTForImageClassification"),
        ("deit", "DeiTForImageClassificationWithTeacher"),
        ("dinov2_registers", "Dinov2WithRegistersForImageClassification"),
        ("bert", "BertForSequenceClassification"),
    ],
)
@pytest.mark.parametrize("part", ["attention", "residual", "norm", "encoder"])
def test_norms_equal_those_of_vectors_formed_in_full(load, name, cls, part):
    from attnlib import capture, explain
    from attnlib.methods.decomposition import Decomposed

    model, inputs, _ = load(name, cls)
    record = capture(model, inputs, internals=True)
    expected, product = [], None
    for layer in record.layers:
        sent = dense(layer, part)
        parts = Decomposed.of(layer, part, "test")
        assert_close(parts.norms(slice(None)), sent.norm(dim=-1), rtol=1e-9, atol=1e-10)
        target, rows = torch.randn_like(layer.internals.total), [10, 2, 5]
        for order in (1, 2):
            apart = (sent[:, rows] - target[:, rows, None]).norm(p=order, dim=-1)
            assert_close(parts.distances(rows, target, order=order), apart, rtol=1e-9, atol=1e-10)
        expected.append(sent.norm(dim=-1))
    for matrix in expected:
        product = matrix if product is None else matrix @ product
    start = record.layout.readout_indices
    got = explain(record, "globenc", include=part).scores
    assert_close(got, product[:, list(start)].mean(dim=1), rtol=1e-8, atol=1e-9)


def test_vectors_of_a_pre_norm_block_add_up_to_the_residual_stream(load):
    """The published formula moved to pre-norm: the sum of all vectors and the bias is what the block hands on."""
    from attnlib import capture

    for name, cls in (
        ("vit", "ViTForImageClassification"),
        ("dinov2_registers", "Dinov2WithRegistersForImageClassification"),
    ):
        model, inputs, _ = load(name, cls)
        seen = {}
        layers = model.vit.layers if name == "vit" else model.dinov2_with_registers.encoder.layer
        norms = [one.layernorm_after if name == "vit" else one.norm2 for one in layers]
        handles = [
            norm.register_forward_pre_hook(
                lambda m, args, i=i, seen=seen: seen.__setitem__(i, args[0].detach())
            )
            for i, norm in enumerate(norms)
        ]
        record = capture(model, inputs, internals=True)
        for handle in handles:
            handle.remove()
        for layer in record.layers:
            total = dense(layer, "residual").sum(dim=2) + layer.internals.output.bias
            assert_close(total, seen[layer.index], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("method", ["attention_norm", "globenc", "alti"])
def test_items_and_padding_do_not_touch_one_another(load, method):
    from attnlib import capture, explain

    model, inputs, _ = load("bert", "BertForSequenceClassification")
    together = explain(capture(model, inputs, internals=True), method, query=0).scores
    order = [2, 0, 1]
    permuted = explain(
        capture(model, {k: v[order] for k, v in inputs.items()}, internals=True), method, query=0
    )
    assert_close(permuted.scores, together[order], rtol=1e-10, atol=1e-12)
    for item, length in enumerate((11, 7, 4)):
        alone = {k: v[item : item + 1, :length] for k, v in inputs.items()}
        scores = explain(capture(model, alone, internals=True), method, query=0).scores
        assert_close(scores[0], together[item, :length], rtol=1e-9, atol=1e-11)
        assert float(together[item, length:].abs().sum()) < 1e-12


@pytest.mark.parametrize("method", ["attention_norm", "globenc", "alti"])
def test_one_row_equals_that_row_of_all(bert, method):
    from attnlib import explain

    record, _ = bert
    everything = explain(record, method, query="all").scores
    for row in (0, 2, 3):
        assert_close(explain(record, method, query=row).scores, everything[:, row], rtol=1e-10, atol=1e-12)


def test_alti_rows_sum_to_one_and_are_never_negative(bert):
    from attnlib import explain

    scores = explain(bert[0], "alti", query="all").scores
    assert (scores >= 0).all()
    assert_close(scores.sum(dim=-1), torch.ones(3, 11, dtype=torch.float64))


def test_a_record_without_internals_is_refused_by_the_name_of_the_argument(load):
    from attnlib import NeedsError, capture, explain

    model, inputs, _ = load("vit", "ViTForImageClassification")
    record = capture(model, inputs)
    for method in ("attention_norm", "globenc", "alti"):
        with pytest.raises(NeedsError, match="internals=True"):
            explain(record, method)


def test_float32_agrees_with_float64(load):
    from attnlib import capture, explain

    for name, cls in (("vit", "ViTForImageClassification"), ("bert", "BertForSequenceClassification")):
        found = []
        for dtype in (torch.float64, torch.float32):
            model, inputs, _ = load(name, cls, dtype)
            record = capture(model, inputs, internals=True)
            found.append([explain(record, m).scores.double() for m in ("attention_norm", "globenc", "alti")])
        for wide, narrow in zip(*found, strict=True):
            assert_close(narrow, wide, rtol=1e-4, atol=1e-7)
