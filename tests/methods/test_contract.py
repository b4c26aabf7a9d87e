"""Every method in METHODS is held to the contract: a new method is tested before its author writes a test."""

import pytest
import torch


def names():
    from attnlib.methods import METHODS

    return sorted(METHODS)


@pytest.fixture(scope="module")
def vit():
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(2)
    config = ViTConfig(
        hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=20, image_size=20,
        patch_size=4, num_labels=5, num_channels=3, hidden_act="gelu",
    )  # fmt: skip
    return ViTForImageClassification(config).eval()


@pytest.fixture(scope="module")
def pixels():
    return torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def record(vit, pixels):
    from attnlib import capture

    return capture(vit, {"pixel_values": pixels}, target=[1, 3], internals=True)


def ask(record, name, pixels, **options):
    from attnlib import explain
    from attnlib.errors import MissingPackageError

    if name == "edges":
        options["picture"] = pixels
    try:
        return explain(record, name, **options)
    except MissingPackageError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", names())
def test_scores_are_finite_one_per_token_and_signed_only_if_the_card_says_so(record, pixels, name):
    from attnlib.methods import METHODS

    found = ask(record, name, pixels)
    assert found.scores.shape == (2, 26)
    assert found.scores.isfinite().all()
    assert found.heatmap().shape == (2, 5, 5)
    for item in range(2):
        assert float(found.scores[item].abs().sum()) > 0 or "every score is 0" in " ".join(found.notes)
    assert METHODS[name].signed or not found.signed
    assert found.method == name
    if found.identity is not None:
        assert found.identity.shape == found.scores.shape
    again = ask(record, name, pixels)
    assert torch.equal(found.scores, again.scores)


@pytest.mark.parametrize("name", [n for n in names() if n != "random"])
def test_an_item_of_a_batch_gets_what_it_gets_alone(vit, record, pixels, name):
    from attnlib import capture

    both = ask(record, name, pixels)
    for item, target in enumerate([1, 3]):
        one = capture(vit, {"pixel_values": pixels[item : item + 1]}, target=[target], internals=True)
        alone = ask(one, name, pixels[item : item + 1]).scores[0]
        scale = float(alone.abs().max())
        torch.testing.assert_close(both.scores[item], alone, rtol=1e-3, atol=2e-5 * scale)


@pytest.mark.parametrize("name", names())
def test_what_a_method_needs_is_refused_by_the_name_of_the_argument(record, pixels, name):
    from attnlib import AttentionRecord, NeedsError, explain
    from attnlib.methods import METHODS

    card = METHODS[name]
    if not card.needs:
        return
    bare = AttentionRecord.from_weights([layer.weights() for layer in record.layers], layout=record.layout)
    argument = "target=" if card.needs == ("gradients",) else r"internals=True|target=|capture\("
    with pytest.raises(NeedsError, match=argument):
        explain(bare, name)


@pytest.mark.parametrize("name", names())
def test_the_card_says_what_a_reader_must_know(name):
    from attnlib.methods import METHODS

    card = METHODS[name]
    text, markdown = card.to_text(), card.to_markdown()
    for part in (card.title, card.summary, card.formula, card.cost):
        assert part
        assert part in text
    if card.family != "baseline":
        assert card.paper
        assert card.reference
        assert card.bibtex.strip().startswith("@")
        assert card.bibtex.count("{") == card.bibtex.count("}")
        assert "```bibtex" in markdown
    for option in card.all_options:
        assert option.help
        assert option.name in text
        assert option.name in markdown
        assert option.default is None or option.check(option.default, name) == option.default
        if option.kind == "choice":
            with pytest.raises(ValueError, match=option.name):
                card.settle({option.name: "no such choice"})
    with pytest.raises(ValueError, match="no option"):
        card.settle({"no_such_option": 1})


@pytest.mark.parametrize("name", names())
def test_the_card_says_whether_a_query_is_taken(record, pixels, name):
    from attnlib.errors import InputError
    from attnlib.methods import METHODS

    card = METHODS[name]
    if card.takes_query:
        assert ask(record, name, pixels, query=(1, 2)).query != ask(record, name, pixels).query
        assert "one map for the whole output" not in card.to_text()
    elif card.family == "baseline":
        asked = ask(record, name, pixels, query=(1, 2))
        assert torch.equal(asked.scores, ask(record, name, pixels).scores)
    else:
        with pytest.raises(InputError, match=r"query"):
            ask(record, name, pixels, query=(1, 2))


@pytest.mark.parametrize("name", names())
def test_all_queries_have_one_map_each_or_are_refused(record, pixels, name):
    from attnlib.errors import InputError
    from attnlib.methods import METHODS

    card = METHODS[name]
    if card.takes_query or card.family == "baseline":
        every = ask(record, name, pixels, query="all")
        assert every.scores.shape == (2, 26, 26)
        assert every.heatmap().shape == (2, 26, 5, 5)
        if card.family == "baseline":
            assert torch.equal(every.scores[:, 7], ask(record, name, pixels).scores)
    else:
        with pytest.raises(InputError, match="query"):
            ask(record, name, pixels, query="all")


@pytest.mark.parametrize("name", names())
def test_a_query_that_is_not_there_is_refused_by_every_method(record, pixels, name):
    from attnlib.errors import InputError

    for query in (26, "nowhere", [], (5, 0), True):
        with pytest.raises(InputError, match=r"quer|token|patch"):
            ask(record, name, pixels, query=query)


def test_an_option_may_decide_whether_a_query_is_taken(record, pixels):
    from attnlib import compare
    from attnlib.methods import METHODS

    card = METHODS["decompx"]
    assert not card.answers_query({})
    assert card.answers_query({"of": "token"})
    assert "of='token' takes one" in card.to_text()
    assert METHODS["rollout"].answers_query({})
    assert not METHODS["cp_lrp"].answers_query({})
    both = compare(record, methods=[("decompx", {"of": "token"}), "raw"], query=(1, 2))
    alone = ask(record, "decompx", pixels, of="token", query=(1, 2))
    torch.testing.assert_close(both.maps[0], alone.share().double(), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", names())
def test_options_left_out_are_stored_with_their_defaults(record, pixels, name):
    from attnlib.methods import METHODS

    found = ask(record, name, pixels)
    for option in METHODS[name].options:
        if isinstance(option.default, str | bool | int | float):
            assert option.name in found.options


def test_every_variant_of_every_method_runs_and_says_its_name(record, pixels):
    from attnlib.methods import METHODS

    tried = 0
    for name, card in METHODS.items():
        for variant in card.variants:
            found = ask(record, name, pixels, variant=variant)
            assert found.options["variant"] == variant
            assert found.scores.isfinite().all()
            tried += 1
    assert tried >= 6


@pytest.mark.parametrize(
    "name", ["generic_relevance", "gradient_rollout", "attention_gradient", "rollout", "raw"]
)
def test_the_class_row_is_the_first_row_of_all(record, pixels, name):
    row, every = ask(record, name, pixels), ask(record, name, pixels, query="all")
    torch.testing.assert_close(row.scores, every.scores[:, 0], rtol=1e-5, atol=1e-8)
    assert row.query == "class"


def test_gradients_are_those_of_finite_differences(vit, pixels, record):
    """Nudging one attention weight moves the target's logit by gradient x step."""
    from attnlib import capture

    target = record.layers[1]
    slope = target.gradients()[0, 1, 0].double()
    model = vit.double()
    try:
        base = capture(model, {"pixel_values": pixels[:1].double()})
        weights = base.layers[1].weights()
        values = base.layers[1].values()
        moved = []
        for key in (3, 17):
            scores = []
            for step in (-1e-4, 1e-4):
                changed = weights.clone()
                changed[0, 1, 0, key] += step
                output = (changed @ values).transpose(1, 2).flatten(2)
                scores.append(_with_context(model, pixels[:1].double(), 1, output)[0, 1])
            moved.append(float(scores[1] - scores[0]) / 2e-4)
    finally:
        vit.float()
    assert moved == pytest.approx([float(slope[3]), float(slope[17])], rel=1e-3, abs=1e-6)


def _with_context(model, pixels, layer, context):
    """Run the model with the input of one layer's output projection replaced."""
    module = model.vit.layers[layer].attention.o_proj

    def replace(_module, _arguments):
        return (context,)

    handle = module.register_forward_pre_hook(replace)
    try:
        with torch.no_grad():
            return model(pixel_values=pixels).logits
    finally:
        handle.remove()
