"""Every matrix case of the reference values, through the public entrance."""

import pytest
import torch


def close(got, wanted):
    """Equal to 1e-10 of the largest value, in float64."""
    wanted = torch.as_tensor(wanted, dtype=torch.float64)
    scale = float(wanted.abs().max())
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10 * scale)


def record_of(attention, gradient=None):
    """[layer, (batch,) head, query, key] arrays -> a record in float64."""
    from attnlib import AttentionRecord

    def stack(array):
        tensor = torch.as_tensor(array).double()
        return list(tensor if tensor.dim() == 5 else tensor[:, None])

    return AttentionRecord.from_weights(
        stack(attention), gradients=None if gradient is None else stack(gradient)
    )


ROLLOUT = ["n1", "n5", "n50", "pad_n8", "pad_n6_zero_rows", "causal_n7", "scaled_n6"]


@pytest.mark.parametrize("name", ROLLOUT)
def test_raw_attention_fuses_the_heads_of_every_layer(reference, name):
    from attnlib import explain

    case = reference.case("matrix_rollout.safetensors", name)
    record = record_of(case["attention"])
    for layer in range(len(record)):
        for fusion in ("mean", "max", "min"):
            if f"raw_{fusion}" not in case:
                continue
            got = explain(record, "raw", query="all", layers=layer, head_fusion=fusion).scores
            close(got, case[f"raw_{fusion}"][layer])


@pytest.mark.parametrize("name", ROLLOUT)
def test_rollout_equals_the_published_matrix_after_every_layer(reference, name):
    from attnlib import explain

    case = reference.case("matrix_rollout.safetensors", name)
    record = record_of(case["attention"])
    for last in range(len(record)):
        got = explain(record, "rollout", query="all", layers=range(last + 1))
        close(got.scores, case["rollout"][last])
        for token in range(got.scores.shape[1]):
            row = explain(record, "rollout", query=token, layers=range(last + 1)).scores
            close(row, case["rollout"][last][:, token])
    close(explain(record, "rollout", query="all", start_layer=1).scores, case["rollout_start_layer_1"])
    literal = explain(record, "rollout", query="all", variant="rollout-matrix-literal").scores
    if "rollout_without_row_normalisation" in case:
        wanted = torch.as_tensor(case["rollout_without_row_normalisation"])
        close(literal, wanted[-1] if wanted.dim() == 4 else wanted)
    else:
        close(literal, case["rollout"][-1])


@pytest.mark.parametrize("name", ["n5", "n17", "n50", "n10_negative_gradient"])
def test_vit_explain_is_reproduced_and_its_rule_done_right(reference, name):
    from attnlib import explain

    case = reference.case("matrix_vit_explain.safetensors", name)
    record = record_of(case["attention"], case["gradient"])
    compared = 0
    for key in case:
        if ".as_" not in key or key.endswith(".mask"):
            continue
        fusion, discard, reading, _ = key.split(".")
        ratio = float(discard.removeprefix("discard_").replace("p", "."))
        options = {"discard_ratio": ratio, "query": "all"}
        if fusion == "grad":
            variant = "vit-explain-function" if reading == "as_implemented" else None
            got = explain(record, "gradient_rollout", variant=variant, **options).scores[0]
        else:
            variant = "vit-explain" if reading == "as_implemented" else None
            got = explain(record, "rollout", head_fusion=fusion, variant=variant, **options).scores[0]
        close(got, case[key])
        compared += 1
    assert compared >= 8


SELF = ["self_n1", "self_n5", "self_n50", "self_causal_n7", "self_pad_n8", "self_negative_n4"]


@pytest.mark.parametrize("name", SELF)
def test_generic_relevance_and_attention_grad_cam_equal_the_published_matrices(reference, name):
    from attnlib import explain

    case = reference.case("matrix_chefer.safetensors", name)
    record = record_of(case["attention"], case["gradient"])
    for last in range(len(record)):
        got = explain(record, "generic_relevance", query="all", layers=range(last + 1)).scores
        close(got, case["relevance"][last])
        positive = explain(record, "attention_gradient", query="all", layers=last, positive=True).scores
        close(positive, case["cam"][last])
        close(
            explain(record, "attention_grad_cam", query="all", layers=last).scores,
            case["attention_gradcam"][last],
        )


VARIANTS = {
    "normalised": {},
    "not_normalised": {"normalise": False},
    "rule10_plain": {"variant": "rule10-plain"},
}


@pytest.mark.parametrize(
    "name",
    ["encdec_q3_i9", "encdec_causal_q4_i6", "encdec_causal_q4_i6_target1", "encdec_zero_row_q4_i5"],
)
def test_encoder_decoder_relevance_equals_the_published_matrices(reference, name):
    from attnlib import AttentionRecord, explain
    from attnlib.record import GivenCall

    case = reference.case("matrix_chefer.safetensors", name)

    def call(kind, layer, stream, keys):
        weights, slopes = (
            torch.as_tensor(case[f"{what}_{kind}"][layer]).double()[None]
            for what in ("attention", "gradient")
        )
        return GivenCall(stream, weights, slopes, keys)

    calls = [call("encoder", i, "encoder", "encoder") for i in range(len(case["attention_encoder"]))]
    for i in range(len(case["attention_decoder"])):
        calls += [call("decoder", i, "decoder", "decoder"), call("cross", i, "decoder", "encoder")]
    record = AttentionRecord.from_streams(calls)
    for variant, options in VARIANTS.items():
        ask = {"query": "all", **options}
        close(
            explain(record, "generic_relevance", key_stream="decoder", **ask).scores[0],
            case[f"{variant}.R_qq"],
        )
        inner = explain(record, "generic_relevance", query_stream="encoder", key_stream="encoder", **ask)
        close(inner.scores[0], case[f"{variant}.R_ii"])
        got = explain(record, "generic_relevance", **ask)
        safe = case.get(f"{variant}.zero_row_safe.R_qi", case[f"{variant}.R_qi"])
        close(got.scores[0], safe)
        assert ("0/0" in " ".join(got.notes)) == (f"{variant}.zero_row_safe.R_qi" in case)
        if variant == "normalised":
            published = explain(record, "generic_relevance", query="all", variant="chefer-detr").scores[0]
            close(published, case["normalised.R_qi"])
            target = int(case["target_index"])
            close(
                explain(record, "generic_relevance", query=target, variant="chefer-detr").scores[0],
                case["normalised.target_row"],
            )


@pytest.mark.parametrize("name", ["co_t5_i7", "co_t4_i3_one_cross"])
def test_co_attention_relevance_equals_the_published_matrices(reference, name):
    from attnlib import AttentionRecord, explain
    from attnlib.record import GivenCall

    case = reference.case("matrix_chefer.safetensors", name)
    stream = {"t": "text", "i": "image"}

    def call(key, layer):
        query, keys = key[-2:]
        weights, slopes = (
            torch.as_tensor(case[f"{what}_{key}"][layer]).double()[None] for what in ("attention", "gradient")
        )
        return GivenCall(stream[query], weights, slopes, stream[keys])

    calls = [call("tt", i) for i in range(len(case["attention_tt"]))]
    calls += [call("ii", i) for i in range(len(case["attention_ii"]))]
    num_cross = len(case["attention_x_ti"])
    for i in range(num_cross):
        last = i == num_cross - 1
        calls += (
            [call("x_ti", i), call("x_tt", i)]
            if last
            else [call("x_ti", i), call("x_it", i), call("x_tt", i), call("x_ii", i)]
        )
    record = AttentionRecord.from_streams(calls)
    for variant, options in VARIANTS.items():
        for query, keys in ("tt", "ti", "ii", "it"):
            got = explain(
                record,
                "generic_relevance",
                query="all",
                query_stream=stream[query],
                key_stream=stream[keys],
                **options,
            ).scores[0]
            wanted = torch.as_tensor(case[f"{variant}.R_{query}{keys}"]).clone()
            if query == keys == "t":
                wanted[0, 0] = float(case[f"{variant}.R_tt_00"])
            close(got, wanted)


@pytest.mark.parametrize("name", ["n1", "n4", "causal_n5", "pad_n5", "n8"])
def test_flow_equals_the_published_matrices_and_lies_within_its_bounds(reference, name):
    from attnlib import explain

    case = reference.case("matrix_flow.safetensors", name)
    record = record_of(case["attention"])
    for last in range(len(record)):
        ask = {"query": "all", "layers": range(last + 1)}
        exact = explain(record, "flow", solver="exact", **ask).scores
        close(exact, case["flow_value"][last])
        close(explain(record, "flow", solver="cut", **ask).scores, case["flow_value"][last])
        close(explain(record, "flow", variant="attention_flow", **ask).scores, case["flow_normalised"][last])
        above = explain(record, "flow", solver="bound", **ask).scores
        below = explain(record, "rollout", **ask).scores
        assert (above >= exact - 1e-12).all()
        assert (below <= exact + 1e-12).all()
