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
