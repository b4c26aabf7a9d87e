"""The lines of the README's table for people who come from other code: each one runs, and gives what it says."""

import re

import pytest
import torch

LINES = {
    "attentions": "record.layers[2].weights()",
    "head": "record.layers[2].weights(heads=[1])",
    "dino": "record.layers[-1].weights(queries=0)[..., record.layout.patch_slice]",
    "joint": 'explain(AttentionRecord.from_weights(attentions), "rollout", query="all").scores',
    "flow": 'explain(AttentionRecord.from_weights(attentions), "flow", query=0, variant="attention_flow").scores',
    "vit-explain": 'explain(record, "rollout", discard_ratio=0.9, variant="vit-explain").heatmap()',
    "vit-explain-grad": 'explain(scored, "gradient_rollout", discard_ratio=0.9, variant="vit-explain").heatmap()',
    "chefer-rollout": 'explain(record, "rollout", start_layer=1).heatmap()',
    "chefer-lrp-rollout": 'explain(scored, "transformer_attribution", gradients=False).heatmap()',
    "chefer-lrp": 'explain(scored, "transformer_attribution").heatmap()',
    "chefer-vit": 'explain(scored, "generic_relevance").heatmap()',
    "chefer-clip": 'explain(pair.select(stream="vision"), "generic_relevance", variant="chefer-clip-notebook").heatmap()',
    "chefer-detr": 'explain(translated, "generic_relevance", query=2).scores',
    "chefer-lxmert": 'explain(asked, "generic_relevance", query=0).scores',
    "legrad": 'explain(per_layer, "legrad", layers=[-2, -1]).heatmap()',
    "grad-cam": 'explain(scored, "grad_cam").heatmap()',
    "captum": 'explain(scored, "integrated_gradients", steps=20).heatmap()',
}


def section(root):
    readme = (root / "README.md").read_text()
    return readme.partition("## Moving over")[2].partition("\n## ")[0]


@pytest.fixture(scope="module")
def names(reference, root, tiny):
    import transformers

    from attnlib import AttentionRecord, capture, explain
    from attnlib.methods import layer_scores

    def load(class_name, folder, **options):
        return (
            getattr(transformers, class_name).from_pretrained(reference.model_dir(folder), **options).eval()
        )

    def inputs_of(folder):
        keys = ("pixel_values", "input_ids", "attention_mask", "decoder_input_ids")
        given = reference.model(folder)["input"]
        return {key: torch.as_tensor(given[key]) for key in keys if key in given}

    vit, inputs = load("ViTForImageClassification", "vit"), inputs_of("vit")
    eager = load("ViTForImageClassification", "vit", attn_implementation="eager")
    with torch.no_grad():
        attentions = eager(**inputs, output_attentions=True).attentions

    def score(tokens):
        return vit.classifier(vit.vit.layernorm(tokens[:, 0]))[:, 3]

    known = {
        "AttentionRecord": AttentionRecord,
        "capture": capture,
        "explain": explain,
        "layer_scores": layer_scores,
        "attentions": attentions,
        "model": vit,
        "inputs": inputs,
        "score": score,
        "clip": load("CLIPModel", "clip"),
        "clip_inputs": inputs_of("clip"),
        "t5": load("T5ForConditionalGeneration", "t5"),
        "t5_inputs": inputs_of("t5"),
        "lxmert": tiny(
            "LxmertForQuestionAnswering", vocab_size=40, l_layers=2, x_layers=2, r_layers=2, visual_feat_dim=7,
            num_qa_labels=5,
        ),
        "lxmert_inputs": {
            "input_ids": torch.arange(1, 8)[None],
            "visual_feats": torch.rand(1, 5, 7),
            "visual_pos": torch.rand(1, 5, 4),
        },
    }  # fmt: skip
    records = re.search(r"```python\n(.*?)```", section(root), re.S)[1]
    exec(compile(records, "README.md", "exec"), known)
    return known


@pytest.mark.parametrize("line", LINES)
def test_our_line_runs(names, line):
    found = eval(LINES[line], dict(names))
    assert found.isfinite().all()
    assert float(found.abs().sum()) > 0


def test_what_is_said_not_to_differ_does_not_differ(names):
    attentions = names["attentions"]

    def ours(line):
        return eval(LINES[line], dict(names))

    torch.testing.assert_close(ours("attentions"), attentions[2], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours("head"), attentions[2][:, 1:2], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours("dino"), attentions[-1][:, :, :1, 1:], rtol=1e-4, atol=1e-6)
    product = torch.eye(17)
    for one in attentions:
        mixed = one.mean(1) + torch.eye(17)
        product = (mixed / mixed.sum(-1, keepdim=True)) @ product
    torch.testing.assert_close(ours("joint"), product, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours("flow").sum(-1), torch.ones(2))
    late = torch.eye(17)
    for one in attentions[1:]:
        mixed = one.mean(1) + torch.eye(17)
        late = (mixed / mixed.sum(-1, keepdim=True)) @ late
    torch.testing.assert_close(ours("chefer-rollout").flatten(1), late[:, 0, 1:], rtol=1e-4, atol=1e-6)


def test_the_readme_shows_exactly_these_lines(root):
    shown = re.findall(r"^\|[^|]*\|[^|]*\| `(.*?)` \|", section(root), flags=re.MULTILINE)
    assert set(shown) == set(LINES.values())
