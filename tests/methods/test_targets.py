"""What is explained: a length, a label of a pair of towers, what follows padding; and features that are no tokens."""

import pytest
import torch

SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}


@pytest.fixture(scope="module")
def ids():
    return torch.randint(3, 48, (3, 7), generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def bert(ids, tiny):
    model = tiny("BertModel", seed=3, vocab_size=50).double()
    mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2, [1] * 3 + [0] * 4])
    return model, {"input_ids": ids, "attention_mask": mask}


LENGTHS = {
    "method": lambda output: output.last_hidden_state[:, 0].norm(dim=-1),
    "function": lambda output: torch.linalg.vector_norm(output.last_hidden_state[:, 1], dim=-1),
    "of ones": lambda output: output.last_hidden_state[:, 0].norm(p=1, dim=1),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_the_length_of_a_state_is_explained(bert, name):
    """A length is gradient x input of itself: what goes into it is shared out in full."""
    from attnlib import capture, explain

    model, inputs = bert
    record = capture(model, inputs, target=LENGTHS[name], internals=True)
    with torch.no_grad():
        length = LENGTHS[name](model(**inputs))
    parts = explain(record, "decompx").scores
    torch.testing.assert_close(parts.sum(dim=-1), length, rtol=1e-6, atol=1e-8)
    assert (parts[2, 3:].abs() < 1e-12).all()
    for method in ("attnlrp", "cp_lrp", "transformer_attribution"):
        scores = explain(record, method).scores
        assert scores.isfinite().all()
        assert (scores.abs().sum(dim=-1) > 0).all()


def test_relevance_of_a_length_is_handed_on_whole():
    """One linear map without a bias: relevance is w x . y / |y|, for lengths by both sets of rules."""
    from attnlib.methods.lrp_rules import LENGTHS as NAMES
    from attnlib.methods.lrp_rules import Rules
    from attnlib.methods.relprop_rules import RelevanceRules

    state = torch.randn(
        3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    ).requires_grad_()
    wanted = (state**2 / state.norm(dim=-1, keepdim=True)).detach()
    assert Rules(conservative=False)(torch.Tensor.norm, (state,), {"dim": -1}) is NotImplemented
    assert {"norm", "linalg_vector_norm"} <= NAMES
    (slope,) = torch.autograd.grad(state.norm(dim=-1).sum(), state)
    torch.testing.assert_close(slope * state.detach(), wanted)
    rules = RelevanceRules(lambda *_: None)
    made = rules(torch.Tensor.norm, (state,), {"dim": -1})
    torch.testing.assert_close(made, state.norm(dim=-1))
    (shared,) = torch.autograd.grad(made, state, made.detach())
    torch.testing.assert_close(shared, wanted, rtol=1e-6, atol=1e-8)


def test_a_text_by_its_number_is_no_target_for_a_map_over_texts(ids):
    from transformers import CLIPConfig, CLIPModel

    from attnlib import capture, explain
    from attnlib.errors import InputError

    torch.manual_seed(4)
    text = {**SMALL, "vocab_size": 50, "max_position_embeddings": 10, "eos_token_id": 49}
    sight = {**SMALL, "image_size": 12, "patch_size": 4}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=sight, projection_dim=8)).eval()
    ids = torch.cat([ids, torch.full((3, 1), 49)], dim=1)
    pixels = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(6))
    record = capture(model, {"input_ids": ids, "pixel_values": pixels}, target=1, internals=True)
    for method in ("generic_relevance", "attnlrp", "decompx"):
        with pytest.raises(InputError, match="diagonal"):
            explain(record.select(stream="text"), method)
        assert explain(record.select(stream="vision"), method).scores.isfinite().all()
    assert explain(record.select(stream="text"), "rollout").scores.isfinite().all()
    own = explain(record.select(stream="text"), "attnlrp", target=lambda out: out.logits_per_image.diagonal())
    alone = capture(model, {"input_ids": ids[1:2], "pixel_values": pixels[1:2]}, target=0)
    torch.testing.assert_close(
        own.scores[1:2], explain(alone.select(stream="text"), "attnlrp").scores, rtol=1e-4, atol=1e-6
    )


def test_what_follows_padding_is_said(ids):
    from transformers import GPT2Config, GPT2LMHeadModel

    from attnlib import capture, explain

    torch.manual_seed(5)
    config = GPT2Config(n_embd=24, n_layer=2, n_head=3, vocab_size=50, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config).eval()
    right = torch.tensor([[1] * 7, [1] * 5 + [0] * 2, [1] * 7])
    for mask, said in ((right, True), (right.flip(1), False)):
        record = capture(model, {"input_ids": ids, "attention_mask": mask}, target=[4, 7, 9])
        notes = " ".join(explain(record, "attnlrp").notes)
        assert ("padding for item 1" in notes) == said
        own = explain(record, "attnlrp", target=lambda output: output.logits[:, 2, 7])
        assert "padding" not in " ".join(own.notes)


def test_features_that_belong_to_no_token_are_refused():
    """As many frequencies as tokens: a sum over time would look like a map over tokens."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    from attnlib import capture, explain
    from attnlib.errors import LayoutError

    torch.manual_seed(6)
    config = WhisperConfig(
        vocab_size=50, num_mel_bins=16, d_model=24, encoder_layers=2, decoder_layers=2, encoder_attention_heads=3,
        decoder_attention_heads=3, encoder_ffn_dim=20, decoder_ffn_dim=20, max_source_positions=16,
        max_target_positions=20, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3,
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    sound = torch.rand(2, 16, 32, generator=torch.Generator().manual_seed(7))
    inputs = {"input_features": sound, "decoder_input_ids": torch.tensor([[3, 7, 9]] * 2)}
    record = capture(WhisperForConditionalGeneration(config).eval(), inputs, target=[4, 7])
    own = record.select(stream="encoder")
    for method in ("attnlrp", "gradient_x_input"):
        with pytest.raises(LayoutError, match="input_features"):
            explain(own, method)
    assert explain(own, "attention_gradient").scores.shape == (2, 16)
    words = explain(record.select(stream="decoder", kind="self"), "attnlrp")
    assert words.scores.shape == (2, 3)
