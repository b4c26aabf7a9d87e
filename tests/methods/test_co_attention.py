"""Two streams that read each other, in a real model of that kind: LXMERT, by the paper's equations 5 to 11."""

import pytest
import torch


@pytest.fixture(scope="module")
def lxmert():
    from transformers import LxmertConfig, LxmertForQuestionAnswering

    from attnlib import capture

    torch.manual_seed(0)
    config = LxmertConfig(
        vocab_size=40, hidden_size=24, num_attention_heads=3, intermediate_size=29, l_layers=3, x_layers=2,
        r_layers=2, visual_feat_dim=7, num_qa_labels=5,
    )  # fmt: skip
    model = LxmertForQuestionAnswering(config).eval().double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    inputs = {
        "input_ids": torch.randint(1, 40, (2, 7)),
        "visual_feats": torch.rand(2, 5, 7, dtype=torch.float64),
        "visual_pos": torch.rand(2, 5, 4, dtype=torch.float64),
    }
    return capture(model, inputs, target=lambda output: output.question_answering_score[:, 2])


def test_a_call_belongs_to_the_stream_of_its_queries_whatever_its_module_is_named(lxmert):
    """The text looks at the picture in a module called visual_attention."""
    calls = [(one.stream, one.kind, one.num_queries, one.num_keys) for one in lxmert.layers]
    own = [("text", "self", 7, 7), ("vision", "self", 5, 5)]
    read = [("text", "cross", 7, 5), ("vision", "cross", 5, 7)]
    assert calls == [own[0]] * 3 + [own[1]] * 2 + [*read, *own] * 2
    assert [one.key_stream for one in lxmert.layers if one.kind == "cross"] == ["vision", "text"] * 2


@pytest.mark.parametrize("normalise", [True, False])
def test_generic_relevance_follows_the_papers_rules(lxmert, normalise):
    from attnlib import explain

    sizes = {"text": 7, "vision": 5}
    eye = {stream: torch.eye(size).double() for stream, size in sizes.items()}
    relevance = {
        (a, b): (eye[a] if a == b else torch.zeros(sizes[a], sizes[b]).double()).repeat(2, 1, 1)
        for a in sizes
        for b in sizes
    }

    def divided(stream):
        matrix = relevance[stream, stream]
        if not normalise:
            return matrix
        received = matrix - eye[stream]
        return received / received.sum(dim=-1, keepdim=True) + eye[stream]

    both = []
    for one in lxmert.layers:
        cam = (one.weights() * one.gradients()).clamp(min=0).mean(dim=1)
        own, other = one.stream, "vision" if one.stream == "text" else "text"
        if one.kind == "self":
            for keys in (own, other):
                relevance[own, keys] = relevance[own, keys] + cam @ relevance[own, keys]
            continue
        added = divided(own).transpose(1, 2) @ cam @ divided(other)
        both.append((own, other, added, cam @ relevance[other, own]))
        if len(both) == 2:  # each reads what the other was before
            for a, b, across, within in both:
                relevance[a, b] = relevance[a, b] + across
                relevance[a, a] = relevance[a, a] + within
            both = []
    for query, keys in (("text", "vision"), ("text", "text"), ("vision", "text"), ("vision", "vision")):
        found = explain(
            lxmert, "generic_relevance", query=0, query_stream=query, key_stream=keys, normalise=normalise
        )
        torch.testing.assert_close(found.scores, relevance[query, keys][:, 0], rtol=1e-8, atol=1e-12)


def test_a_product_of_one_streams_own_layers_says_that_it_leaves_the_other_out(lxmert):
    from attnlib import explain

    text = lxmert.select(stream="text")
    for name in ("rollout", "gradient_rollout", "flow"):
        notes = explain(text, name, query=0).notes
        assert sum("what the text reads from another stream takes no part" in note for note in notes) == 1
    alone = text.select(kind="self")
    assert not any("takes no part" in note for note in explain(alone, "rollout", query=0).notes)
