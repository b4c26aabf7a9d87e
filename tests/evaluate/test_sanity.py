import pytest
import torch
from torch import nn

GRID = (5, 7)


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def ran():
    from attnlib.evaluate import randomisation

    return randomisation


@pytest.fixture
def model():
    torch.manual_seed(0)

    class Tiny(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(11, 13)
            self.blocks = nn.ModuleList([nn.Linear(13, 13) for _ in range(3)])
            self.head = nn.Linear(13, 5)

        def forward(self, x):
            x = self.embed(x)
            for block in self.blocks:
                x = x + torch.tanh(block(x))
            return self.head(x)

    return Tiny()


def test_similarity_equals_spearmans_rank_correlation(ran):
    from scipy.stats import spearmanr

    first, second = rand(3, *GRID, seed=1), rand(3, *GRID, seed=2)
    second[1] = (second[1] * 4).round()
    for item in range(3):
        theirs = spearmanr(first[item].flatten(), second[item].flatten()).statistic
        assert ran.similarity(first, second)[item].item() == pytest.approx(theirs, abs=1e-6)
    torch.testing.assert_close(ran.similarity(first, first**3).float(), torch.ones(3))


def test_a_constant_map_is_like_itself_and_like_nothing_else(ran):
    flat = torch.ones(2, *GRID)
    assert ran.similarity(flat, 3 * flat).tolist() == [1, 1]
    assert ran.similarity(flat, rand(2, *GRID)).tolist() == [0, 0]


def test_stages_go_from_the_output_to_the_input(ran, model):
    assert ran.stages(model) == ("head", "blocks.2", "blocks.1", "blocks.0", "embed")


def test_randomised_weights_come_back_even_after_an_error(ran, model):
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def fail():
        with ran.randomised(model, ["head", "blocks.1"]):
            assert not torch.equal(model.head.weight, before["head.weight"])
            assert torch.equal(model.embed.weight, before["embed.weight"])
            assert model.head.weight.std().item() == pytest.approx(
                before["head.weight"].std().item(), rel=0.4
            )
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_map_of_the_picture_alone_fails_and_one_of_the_weights_passes(ran, model):
    picture = rand(2, *GRID, seed=3)
    blind = ran.parameter_randomisation(model, lambda: picture)
    assert (blind.similarity == 1).all()
    assert blind.similarity.shape == (5, 2)

    def from_weights():
        return model(rand(35, 11, seed=4)).detach()[:, :1].T.reshape(1, *GRID)

    learned = ran.parameter_randomisation(model, from_weights)
    assert learned.final.abs().item() < 0.6
    alone = ran.parameter_randomisation(model, from_weights, cascading=False, names=["blocks.0", "embed"])
    assert alone.stages == ("blocks.0", "embed")
    torch.testing.assert_close(
        alone.similarity[0], ran.parameter_randomisation(model, from_weights, names=["blocks.0"]).final
    )


def test_a_map_that_ignores_the_label_is_found_out(ran):
    fixed, own = rand(2, *GRID), rand(4, 2, *GRID, seed=9)
    targets, others = torch.tensor([0, 1]), torch.tensor([2, 3])
    assert ran.another_label(lambda labels: fixed, targets, others).tolist() == [1, 1]
    per_label = ran.another_label(lambda labels: own[labels, torch.arange(2)], targets, others)
    assert (per_label.abs() < 0.5).all()
    from attnlib.errors import InputError

    with pytest.raises(InputError, match="same"):
        ran.another_label(lambda labels: fixed, targets, targets)


def test_stability_is_one_for_constant_maps_and_falls_with_the_radius():
    from attnlib.evaluate.steadiness import sensitivity, stability

    inputs = rand(2, 3, 10, 14, seed=5)

    def maps_of(x):
        return x.mean(dim=1)

    assert stability(lambda x: torch.ones(2, *GRID), inputs).tolist() == [1, 1]
    assert sensitivity(lambda x: torch.ones(2, *GRID), inputs).tolist() == [0, 0]
    small, large = (stability(maps_of, inputs, radius=r) for r in (0.01, 0.5))
    assert (small > large).all()
    assert (small > 0.95).all()
    assert (sensitivity(maps_of, inputs, radius=0.01) < sensitivity(maps_of, inputs, radius=0.5)).all()


def test_sensitivity_equals_that_of_captum_under_the_same_noise():
    metrics = pytest.importorskip("captum.metrics")
    from attnlib.evaluate.steadiness import noisy_copies, sensitivity

    inputs = rand(3, 2, *GRID, seed=6)
    (noisy,) = noisy_copies(inputs, radius=0.1, samples=1, seed=4)

    def maps_of(x):
        return (x**2).mean(dim=1) + x[:, 0].roll(1, dims=-1)

    def explained(given):  # the library passes the input in a tuple and the noisy one as it came
        return (maps_of(given[0] if isinstance(given, tuple) else given),)

    theirs = metrics.sensitivity_max(explained, inputs, perturb_func=lambda given: noisy, n_perturb_samples=1)
    torch.testing.assert_close(sensitivity(maps_of, inputs, radius=0.1, samples=1, seed=4), theirs)


def test_maps_without_a_value_have_no_similarity_and_no_change(ran):
    from attnlib.evaluate.steadiness import relative_change

    first, second = rand(2, *GRID, seed=1), rand(2, *GRID, seed=2)
    second[0, 1, 1] = float("nan")
    assert ran.similarity(first, second).isnan().tolist() == [True, False]
    first[1] = 0
    assert relative_change(first, [rand(2, *GRID, seed=3)]).isnan().tolist() == [False, True]


def test_heads_that_say_the_same_agree_and_unrelated_ones_do_not():
    from attnlib.evaluate.steadiness import head_agreement

    one = rand(2, 1, *GRID)
    torch.testing.assert_close(head_agreement(one.expand(2, 3, *GRID)).float(), torch.ones(2))
    assert (head_agreement(rand(2, 7, *GRID)).abs() < 0.2).all()


def test_artifacts_are_the_outliers_of_the_norm_and_uniform_maps_get_their_area():
    from attnlib.evaluate import artifacts

    norms = 1 + 0.1 * rand(2, *GRID)
    norms[0, 2, 3] = 9
    patches = artifacts.artifact_patches(norms)
    assert patches.sum().item() == 1
    assert patches[0, 2, 3]
    flat = torch.ones(2, *GRID)
    assert artifacts.artifact_share(flat, patches).tolist() == [pytest.approx(1 / 35), 0]
    spike = flat.clone()
    spike[0, 2, 3] = 36
    assert artifacts.artifact_share(spike, patches)[0].item() == pytest.approx(36 / 70)
    concentration = artifacts.artifact_concentration(spike, patches)
    assert concentration[0].item() == pytest.approx(18)
    assert concentration[1].isnan()


def test_hot_background_is_mass_that_stands_out_where_nothing_is():
    from attnlib.evaluate.artifacts import hot_background

    maps = torch.ones(1, *GRID)
    masks = torch.zeros(1, *GRID)
    masks[0, 0, 0] = 1
    assert hot_background(maps, masks).item() == 0
    maps[0, 0, 0], maps[0, 4, 4] = 33, 34
    assert hot_background(maps, masks).item() == pytest.approx(0.34)


def test_intervals_hold_the_mean_and_paired_differences_are_narrower():
    from attnlib.errors import InputError
    from attnlib.evaluate.statistics import mean_estimate, paired_difference

    hard = rand(300, seed=1)
    better = hard + 0.05 + 0.01 * rand(300, seed=2)
    own, gain = mean_estimate(hard), paired_difference(better, hard)
    assert own.low < own.value < own.high
    assert own.count == 300
    assert 0.05 < gain.low < gain.value < gain.high < 0.06
    assert gain.high - gain.low < own.high - own.low
    assert mean_estimate(torch.tensor([0.5, torch.nan])).count == 1
    with pytest.raises(InputError, match="no item"):
        mean_estimate(torch.tensor([torch.nan]))
    with pytest.raises(InputError, match="differ in number"):
        paired_difference(hard, hard[:3])


def test_baselines_have_the_shape_of_the_grid_and_edges_follow_contrast():
    from attnlib.errors import InputError
    from attnlib.evaluate.baselines import BASELINES, baseline_maps

    pixels = torch.zeros(2, 3, 20, 28)
    pixels[1, :, 8:12, 12:16] = 1
    for name in BASELINES:
        maps = baseline_maps(name, pixels, GRID, seed=3)
        assert maps.shape == (2, *GRID)
        assert (maps >= 0).all()
        assert torch.equal(maps, baseline_maps(name, pixels, GRID, seed=3))
    edges = baseline_maps("edges", pixels, GRID)
    assert (edges[0] == 0).all()
    assert edges[1].argmax().item() == 2 * 7 + 3
    centre = baseline_maps("centre", pixels, GRID)
    assert centre[0].argmax().item() == 2 * 7 + 3
    torch.testing.assert_close(centre, centre.flip(1).flip(2))
    with pytest.raises(InputError, match="unknown baseline"):
        baseline_maps("mean", pixels, GRID)


def test_a_lone_patch_is_a_spike_and_a_thing_of_many_patches_is_not():
    from attnlib.evaluate import spike_share

    maps = torch.ones(3, 11, 13)
    maps[0, 5, 5] = 36
    maps[1, 3:7, 4:8] = 20
    maps[1, 9, 12] = 20
    assert spike_share(maps)[0].item() == pytest.approx(36 / 178)
    assert spike_share(maps)[1].item() == pytest.approx(20 / maps[1].sum().item(), rel=1e-4)
    assert spike_share(maps)[2].item() == 0
