"""What needs whole matrices says so before it takes the memory, and asks for no more than it said."""

import pytest
import torch


def weights(generator, *shape):
    return torch.rand(*shape, generator=generator).softmax(-1)


def one_stream(size=31, batch=2):
    from attnlib import AttentionRecord

    g = torch.Generator().manual_seed(3)
    made = [weights(g, batch, 3, size, size) for _ in range(2)]
    slopes = [torch.randn(batch, 3, size, size, generator=g) for _ in range(2)]
    return AttentionRecord.from_weights(made, gradients=slopes)


def two_streams(first=29, second=17, gaps=()):
    from attnlib import AttentionRecord
    from attnlib.record import GivenCall

    g = torch.Generator().manual_seed(5)

    def call(stream, rows, keys, other=None):
        return GivenCall(
            stream, weights(g, 1, 2, rows, keys), torch.randn(1, 2, rows, keys, generator=g), other
        )

    record = AttentionRecord.from_streams(
        [
            call("text", first, first),
            call("vision", second, second),
            call("text", first, second, "vision"),
            call("vision", second, first, "text"),
            call("text", first, first),
        ]
    )
    record.gaps = tuple(gaps)
    return record


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("rollout", {"discard_ratio": 0.5}),
        ("rollout", {"variant": "vit-explain"}),
        ("gradient_rollout", {"discard_ratio": 0.5}),
        ("gradient_rollout", {"variant": "vit-explain"}),
        ("rollout", {"query": "all"}),
    ],
)
def test_whole_matrices_are_refused_above_what_was_allowed_and_made_below_it(method, options):
    from attnlib import explain
    from attnlib.errors import BudgetError

    record = one_stream()
    with pytest.raises(BudgetError, match=r"31x31.*max_memory") as refused:
        explain(record, method, max_memory=2 * 31 * 31 * 4, **{"query": 0, **options})
    assert isinstance(refused.value, MemoryError)
    allowed = explain(record, method, max_memory=2**20, **{"query": 0, **options})
    torch.testing.assert_close(allowed.scores, explain(record, method, **{"query": 0, **options}).scores)


@pytest.mark.parametrize("fusion", ["mean", "max", "min"])
def test_fusing_heads_needs_no_whole_matrix(fusion):
    from attnlib import explain

    found = explain(one_stream(), "rollout", query=0, head_fusion=fusion, max_memory=1)
    assert found.scores.shape == (2, 31)


def test_two_streams_are_refused_above_what_was_allowed():
    from attnlib import explain
    from attnlib.errors import BudgetError

    with pytest.raises(BudgetError, match=r"29 \(text\) and 17 \(vision\)"):
        explain(two_streams(), "generic_relevance", query=0, max_memory=8 * (29**2 + 17**2) * 4 - 1)
    found = explain(two_streams(), "generic_relevance", query=0, max_memory=8 * (29**2 + 17**2) * 4)
    assert found.scores.shape == (1, 17)


@pytest.mark.parametrize("allowed", [0, -5, True])
def test_what_is_allowed_is_a_number_of_bytes(allowed):
    from attnlib import explain
    from attnlib.errors import InputError

    with pytest.raises(InputError, match="max_memory"):
        explain(two_streams(), "generic_relevance", query=0, max_memory=allowed)


def test_without_a_limit_the_free_memory_is_the_limit(monkeypatch):
    from attnlib import explain
    from attnlib.errors import BudgetError
    from attnlib.methods import memory

    assert memory.memory_at_hand() > 2**20
    monkeypatch.setattr(memory, "_available", lambda: 1000)
    with pytest.raises(BudgetError, match="free here"):
        explain(two_streams(), "generic_relevance", query=0)


def test_a_container_that_allows_less_than_the_machine_has_is_heeded(monkeypatch, tmp_path):
    from attnlib.methods import memory

    (tmp_path / "memory.max").write_text("7000\n", encoding="ascii")
    (tmp_path / "memory.current").write_text("4000\n", encoding="ascii")
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    assert memory.memory_at_hand() == 3000
    (tmp_path / "memory.max").write_text("max\n", encoding="ascii")
    assert memory.memory_at_hand() > 2**20


def test_two_streams_are_not_followed_across_what_has_no_weights():
    from attnlib import explain
    from attnlib.errors import NeedsError
    from attnlib.record import Gap

    scan = Gap("text.2.mamba", "Mamba", "is a scan", "text", 1.5)
    with pytest.raises(NeedsError, match=r"text\.2\.mamba"):
        explain(two_streams(gaps=[scan]), "generic_relevance", query=0)
    elsewhere = two_streams(gaps=[Gap("audio.0.mamba", "Mamba", "is a scan", "audio", 0.5)])
    wanted = explain(two_streams(), "generic_relevance", query=0).scores
    torch.testing.assert_close(explain(elsewhere, "generic_relevance", query=0).scores, wanted)


def test_layers_that_are_averaged_may_have_something_without_weights_between_them():
    from attnlib import explain
    from attnlib.errors import NeedsError
    from attnlib.record import Gap

    record = one_stream()
    wanted = explain(record, "legrad")
    record.gaps = (Gap("layers.1.mamba", "Mamba", "is a scan", "", 0.5),)
    found = explain(record, "legrad")
    torch.testing.assert_close(found.scores, wanted.scores)
    assert "layers.1.mamba" in " ".join(found.notes)
    with pytest.raises(NeedsError, match=r"layers\.1\.mamba"):
        explain(record, "generic_relevance", query=0)


def test_a_stream_that_reads_another_one_says_what_is_missing():
    from attnlib import explain
    from attnlib.errors import LayoutError

    with pytest.raises(LayoutError, match="text reads another stream"):
        explain(two_streams().select(stream="text"), "generic_relevance", query=0)
