"""Methods that need more than attention weights, on many families: right shapes, or a refusal by name."""

import pytest
import torch

SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
OUTPUT = {"attnlrp", "cp_lrp", "integrated_gradients", "gradient_x_input", "grad_cam", "decompx"}
WINDOWED = {"alti", "attention_norm", "decompx", "globenc", "grad_cam", "transformer_attribution"}
TEXT = {
    "input_ids": torch.tensor([[3, 9, 4, 7, 21, 33, 5, 8, 11], [6, 2, 19, 30, 12, 1, 0, 0, 0]]),
    "attention_mask": torch.tensor([[1] * 9, [1] * 6 + [0] * 3]),
}


def pixels(height, width):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(6))


def pooled(output):
    return output.pooler_output[:, 1]


def family(name):
    """Return model, inputs, target and the methods that refuse it."""
    import transformers as tf

    torch.manual_seed(8)
    square, wide = {"pixel_values": pixels(20, 20)}, {"pixel_values": pixels(20, 28)}
    image = {**SMALL, "image_size": 20, "patch_size": 4}
    if name == "dinov2_with_registers":
        config = tf.Dinov2WithRegistersConfig(
            hidden_size=24, num_hidden_layers=2, num_attention_heads=3, mlp_ratio=2, image_size=20, patch_size=4,
            num_register_tokens=3, num_labels=5,
        )  # fmt: skip
        return tf.Dinov2WithRegistersForImageClassification(config), wide, [1, 2], set()
    if name == "deit":
        config = tf.DeiTConfig(**image, num_labels=5)
        return tf.DeiTForImageClassificationWithTeacher(config), square, [1, 2], set()
    if name == "clip_vision":
        return tf.CLIPVisionModel(tf.CLIPVisionConfig(**image)), square, pooled, set()
    if name == "siglip_vision":
        return tf.SiglipVisionModel(tf.SiglipVisionConfig(**image)), square, pooled, set()
    if name == "dinov2_gated":
        config = tf.Dinov2Config(
            hidden_size=24, num_hidden_layers=2, num_attention_heads=3, mlp_ratio=2, image_size=20, patch_size=4,
            use_swiglu_ffn=True, num_labels=5,
        )  # fmt: skip
        return tf.Dinov2ForImageClassification(config), wide, [1, 2], set()
    if name == "beit":
        config = tf.BeitConfig(**image, num_labels=5, use_relative_position_bias=True)
        return tf.BeitForImageClassification(config), square, [1, 2], set()
    if name == "swin":
        config = tf.SwinConfig(
            image_size=32,
            patch_size=2,
            embed_dim=8,
            depths=[2, 2],
            num_heads=[2, 4],
            window_size=4,
            num_labels=5,
        )
        return tf.SwinForImageClassification(config), {"pixel_values": pixels(32, 32)}, [1, 2], WINDOWED
    if name == "llama":
        config = tf.LlamaConfig(
            hidden_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=20, vocab_size=50,
        )  # fmt: skip
        return tf.LlamaForCausalLM(config), {"input_ids": TEXT["input_ids"]}, [4, 7], set()
    if name == "roberta":
        config = tf.RobertaConfig(**SMALL, vocab_size=50, num_labels=3)
        return tf.RobertaForSequenceClassification(config), TEXT, [0, 2], set()
    if name == "distilbert":
        config = tf.DistilBertConfig(
            dim=24, n_layers=2, n_heads=3, hidden_dim=20, vocab_size=50, num_labels=3
        )
        return tf.DistilBertForSequenceClassification(config), TEXT, [0, 2], set()
    config = tf.GPT2Config(n_embd=24, n_layer=2, n_head=3, vocab_size=50, bos_token_id=0, eos_token_id=0)
    return tf.GPT2LMHeadModel(config), {"input_ids": TEXT["input_ids"]}, [4, 7], set()


NAMES = [
    "dinov2_with_registers", "dinov2_gated", "deit", "beit", "clip_vision", "siglip_vision", "swin", "roberta",
    "distilbert", "gpt2", "llama",
]  # fmt: skip


def explained(record, method, item=slice(None)):
    from attnlib import explain

    text = record.layers[0].stream != "vision"
    options = {"steps": 3} if method == "integrated_gradients" else {}
    query = 0 if text and method not in OUTPUT else None
    return explain(record, method, query=query, **options).scores[item]


@pytest.mark.parametrize("name", NAMES)
def test_each_method_gives_finite_scores_per_item_or_refuses_by_name(name):
    pytest.importorskip("captum")
    pytest.importorskip("pytorch_grad_cam")
    from attnlib import METHODS, capture
    from attnlib.errors import CaptureError

    model, inputs, target, refused = family(name)
    model = model.eval()
    record = capture(model, inputs, target=target, internals=True)
    first = capture(
        model,
        {key: value[:1] for key, value in inputs.items()},
        target=target if callable(target) else target[:1],
        internals=True,
    )
    methods = [m for m, card in METHODS.items() if card.needs_internals]
    for method in methods:
        if method in refused:
            with pytest.raises(CaptureError, match=f"{method}: .* windows; {method} is worked out"):
                explained(record, method)
            continue
        scores = explained(record, method)
        # merged patches: the methods of the input score the last grid, propagation the first
        assert scores.shape[0] == 2, method
        assert scores.shape[1] in (record.layers[0].num_keys, record.layout.num_tokens), method
        assert scores.isfinite().all(), method
        assert float(scores.abs().sum()) > 0, method
        alone = explained(first, method)[0]
        scale = float(alone.abs().max())
        torch.testing.assert_close(
            scores[0], alone, rtol=5e-3, atol=2e-4 * scale, msg=lambda m, n=method: f"{n}: {m}"
        )


def test_relevance_goes_through_torchs_own_multi_head_attention():
    """By the rules of its parts, written out: the same numbers as a model that calls the parts itself."""
    from attnlib import capture, explain

    class Own(torch.nn.Module):
        def __init__(self, whole):
            super().__init__()
            self.embedding = torch.nn.Embedding(50, 12)
            self.attention = torch.nn.MultiheadAttention(12, 3, batch_first=True)
            self.head, self.whole = torch.nn.Linear(12, 5), whole

        def forward(self, input_ids):
            x = self.embedding(input_ids)
            if self.whole:
                return self.head((x + self.attention(x, x, x, need_weights=False)[0])[:, 0])
            made = torch.nn.functional.linear(x, self.attention.in_proj_weight, self.attention.in_proj_bias)
            q, k, v = made.unflatten(-1, (3, 3, 4)).permute(2, 0, 3, 1, 4)
            mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            return self.head((x + self.attention.out_proj(mixed))[:, 0])

    torch.manual_seed(9)
    models = Own(True).double().eval(), Own(False).double().eval()
    models[1].load_state_dict(models[0].state_dict())
    inputs = {"input_ids": TEXT["input_ids"]}
    for method in ("attnlrp", "cp_lrp"):
        whole, parts = (explain(capture(m, inputs, target=[3, 1]), method).scores for m in models)
        torch.testing.assert_close(whole, parts)
