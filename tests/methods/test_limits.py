"""Options at the ends of their ranges, and what is no option: a finite map, or an error of attnlib that says why."""

import pytest
import torch

BASELINES = {"uniform", "random", "centre", "edges"}


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=str)
def vit(request, tiny):
    from attnlib import capture

    model = tiny("ViTForImageClassification", seed=3, image_size=(12, 20), patch_size=4, num_labels=5)
    model.to(request.param)
    pixels = torch.rand(3, 3, 12, 20, generator=torch.Generator().manual_seed(1)).to(request.param)
    return capture(model, {"pixel_values": pixels}, target=[0, 4, 2], internals=True)


def ends(option):
    """Values at the ends of an option's range, and the other choices."""
    if option.name == "start_layer":
        return [0, 1, -1, -2]
    if option.name == "heads":
        return [0, -1, [2, 0], range(3), (1,)]
    if option.kind == "choice":
        return list(option.choices)
    if option.kind == "bool":
        return [True, False]
    return [one for one in (option.low, option.high) if one is not None]


def names():
    from attnlib.methods import METHODS

    return sorted(METHODS)


def ask(record, name, **options):
    from attnlib import explain
    from attnlib.errors import MissingPackageError

    if name == "edges":
        options.setdefault("picture", record.on_rerun.kwargs["pixel_values"].float())
    if name == "integrated_gradients":
        options.setdefault("steps", 2)
    try:
        return explain(record, name, **options)
    except MissingPackageError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", names())
def test_every_end_of_every_option_gives_a_finite_map_of_the_right_shape(vit, name):
    from attnlib.methods import METHODS

    card = METHODS[name]
    tried = [{}, *({option.name: value} for option in card.options for value in ends(option))]
    tried += [{"variant": one} for one in card.variants]
    if "discard_ratio" in card.defaults:
        tried += [
            {"discard_ratio": 1.0, "residual_weight": 0.0},
            {"discard_ratio": 1, "variant": "vit-explain"},
        ]
    for options in tried:
        if name == "generic_relevance" and {"query_stream", "key_stream"} & set(options):
            continue
        if options.get("through") == "pooler":  # this model has none
            continue
        found = ask(vit, name, **options)
        assert found.scores.shape == (3, 16), options
        assert found.heatmap().shape == (3, 3, 5), options
        assert found.scores.isfinite().all(), options
        assert METHODS[name].signed or not found.signed, options


@pytest.mark.parametrize("name", names())
def test_what_is_no_option_is_told_in_words(vit, name):
    from attnlib.errors import AttnlibError, InputError
    from attnlib.methods import METHODS

    card = METHODS[name]
    wrong = {
        "heads": [[], 99, ["a"], [0.5], [True, False, True], 1.5, "all"],
        "start_layer": [2, -3, 0.5, "last", True, None],
        "target": [[1, 2], "no label", 99, 3.5, [0.5, 1, 2], lambda _: 1.0, lambda _: torch.zeros(3)],
        "variant": ["no variant", 1],
    }
    for option in card.all_options:
        values = list(wrong.get(option.name, []))
        if option.kind in ("int", "float"):
            values += [float("nan"), float("inf"), "0.5", [1]]
            values += [option.high + 1] if option.high is not None else []
            values += [option.low - 1] if option.low is not None else []
        if option.kind in ("choice", "bool"):
            values += ["no such thing", 2]
        for value in values:
            with pytest.raises(AttnlibError) as told:
                ask(vit, name, **{option.name: value})
            assert len(str(told.value)) > 20, (option.name, value)
    if name not in BASELINES:
        for layers in ([], 7, [0, -9], [-3]):
            with pytest.raises(InputError, match=r"layer|no query"):
                ask(vit, name, layers=layers)


@pytest.mark.parametrize(
    "query",
    ["distillation", 16, -17, (3, 0), (0, -9), [], [0, 0], [99], True, 0.5, [[0], [1]], torch.tensor([0, 1])],
)
@pytest.mark.parametrize("name", [name for name in names() if name not in BASELINES])
def test_a_query_that_is_not_there_is_told_in_words(vit, name, query):
    from attnlib.errors import AttnlibError

    with pytest.raises(AttnlibError, match=r"query|token|patch|row"):
        ask(vit, name, query=query)


def test_arrays_and_tensors_are_indices_too(vit):
    import numpy as np

    from attnlib.record.indices import whole_numbers

    for heads in (np.array([0, 2]), torch.tensor([0, 2]), (0, 2), range(0, 3, 2)):
        found = ask(vit, "rollout", heads=heads)
        assert list(found.options["heads"]) == [0, 2]
        torch.testing.assert_close(found.scores, ask(vit, "rollout", heads=[0, 2]).scores)
    for one in (np.int64(1), torch.tensor(1), np.array([1]), (1,), range(1, 2), {1: "x"}):
        assert whole_numbers(one, "layers") == [1]
    for none in ("1", 0.5, [True], None, torch.tensor([True])):
        with pytest.raises(ValueError, match="layers are chosen by their index"):
            whole_numbers(none, "layers")
