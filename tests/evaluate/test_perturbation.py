import numpy as np
import pytest
import torch

GRID, PATCH = (3, 5), 2


@pytest.fixture(scope="module")
def per():
    from attnlib.evaluate import perturbation

    return perturbation


@pytest.fixture
def inputs():
    return torch.rand(2, 3, GRID[0] * PATCH, GRID[1] * PATCH, generator=torch.Generator().manual_seed(1)) + 1


def one_patch(inputs):
    """Score: brightness of the patch at row 1, column 3, whatever else is shown."""
    return inputs[:, :, 2:4, 6:8].mean(dim=(1, 2, 3))


def test_hiding_the_patch_that_counts_first_or_last_gives_the_extremes(per, inputs):
    maps = torch.zeros(2, *GRID)
    maps[:, 1, 3] = 1
    steps = tuple(i / 15 for i in range(16))
    first = per.perturb(one_patch, inputs, maps, fill=0.0, fractions=steps)
    last = per.perturb(one_patch, inputs, maps, order="lowest", fill=0.0, fractions=steps)
    full = one_patch(inputs)
    torch.testing.assert_close(first.scores[:, 0], full)
    assert (first.scores[:, 1:] == 0).all()
    torch.testing.assert_close(last.scores[:, :15], full[:, None].expand(2, 15))
    assert (last.scores[:, 15] == 0).all()
    torch.testing.assert_close(first.area, full / 30)


def test_a_constant_map_does_as_well_as_chance(per, inputs):
    values = [
        per.faithfulness(one_patch, inputs, torch.ones(2, *GRID), fill=0.0, seed=seed) for seed in range(200)
    ]
    assert torch.stack(values).mean().abs() < 0.1
    right = torch.zeros(2, *GRID)
    right[:, 1, 3] = 1
    assert (per.faithfulness(one_patch, inputs, right, fill=0.0) > 0.8).all()


def test_every_patch_is_hidden_once_and_each_item_follows_its_own_map(per, inputs):
    maps = torch.rand(2, *GRID, generator=torch.Generator().manual_seed(2))
    curves = per.perturb(lambda x: (x != 0).float().mean(dim=(1, 2, 3)), inputs, maps, fill=0.0,
                         fractions=(0.0, 0.2, 1.0))  # fmt: skip
    torch.testing.assert_close(curves.scores, torch.tensor([[1.0, 0.8, 0.0]] * 2))
    swapped = per.perturb(one_patch, inputs.flip(0), maps.flip(0), fill=0.0)
    torch.testing.assert_close(per.perturb(one_patch, inputs, maps, fill=0.0).scores, swapped.scores.flip(0))


def test_the_model_is_called_without_gradients_and_inputs_stay(per, inputs):
    kept = inputs.clone()

    def score(x):
        assert not torch.is_grad_enabled()
        return one_patch(x)

    per.deletion(score, inputs, torch.rand(2, *GRID))
    assert torch.equal(inputs, kept)


def test_fills_keep_the_shape_and_unknown_ones_are_refused(per, inputs):
    from attnlib.errors import InputError

    torch.testing.assert_close(
        per.fill_values(inputs, "mean")[:, :, 0, 0], inputs.mean(dim=(2, 3)), atol=1e-6, rtol=1e-5
    )
    soft = per.fill_values(inputs, "blur")
    assert soft.shape == inputs.shape
    assert (soft.std(dim=(2, 3)) < 0.5 * inputs.std(dim=(2, 3))).all()
    flat = torch.full((1, 3, 30, 42), 0.7)
    torch.testing.assert_close(per.fill_values(flat, "blur"), flat, atol=1e-5, rtol=0)
    assert (per.fill_values(inputs, -1.5) == -1.5).all()
    with pytest.raises(InputError, match="fill"):
        per.fill_values(inputs, "noise")
    with pytest.raises(InputError, match="fractions"):
        per.deletion(one_patch, inputs, torch.rand(2, *GRID), fractions=(0.5, 0.2))
    with pytest.raises(InputError, match="order"):
        per.perturb(one_patch, inputs, torch.rand(2, *GRID), order="random")


def test_the_area_is_the_mean_of_a_straight_curve(per):
    curves = per.Curves((0.0, 0.5, 1.0), torch.tensor([[1.0, 0.5, 0.0], [0.2, 0.2, 0.2]]))
    torch.testing.assert_close(curves.area, torch.tensor([0.5, 0.2]))


def test_maps_that_are_not_finite_give_no_order(per, inputs):
    from attnlib.errors import InputError

    maps = torch.rand(2, *GRID)
    maps[1, 0, 0] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        per.deletion(one_patch, inputs, maps)


def test_insertion_is_rises_insertion_read_from_the_right(per, inputs):
    """RISE: start from the blank picture, bring the highest patches back first."""
    maps = torch.rand(2, *GRID, generator=torch.Generator().manual_seed(4))
    order = maps.flatten(1).argsort(dim=1, descending=True)
    curve = []
    for shown in range(16):
        keep = torch.zeros(2, 15).scatter(1, order[:, :shown], 1.0).reshape(2, 1, *GRID)
        keep = keep.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
        curve.append(one_patch(inputs * keep))
    steps = tuple(i / 15 for i in range(16))
    ours = per.insertion(one_patch, inputs, maps, fill=0.0, fractions=steps)
    torch.testing.assert_close(ours.scores.flip(1), torch.stack(curve, dim=1))
    area = torch.trapezoid(torch.stack(curve, dim=1), torch.tensor(steps), dim=1)
    torch.testing.assert_close(ours.area, area)


def test_the_deletion_curve_equals_pixel_flipping_of_quantus(per):
    quantus = pytest.importorskip("quantus")
    torch.manual_seed(0)
    head = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(15, 4), torch.nn.Softmax(dim=1)).eval()
    x = torch.rand(2, 1, *GRID)
    maps = torch.rand(2, *GRID)
    metric = quantus.PixelFlipping(
        features_in_step=3, perturb_baseline="black", abs=False, normalise=False, disable_warnings=True
    )
    theirs = metric(
        model=head, x_batch=x.numpy(), y_batch=np.array([1, 2]), a_batch=maps[:, None].numpy(), device="cpu"
    )
    labels = torch.tensor([[1], [2]])
    steps = tuple(i / 5 for i in range(1, 6))
    for item in range(2):
        part = slice(item, item + 1)
        ours = per.deletion(
            lambda pixels, part=part: head(pixels).gather(1, labels[part])[:, 0],
            x[part], maps[part], fill=float(x[part].min()), fractions=steps,
        )  # fmt: skip
        np.testing.assert_allclose(ours.scores[0].numpy(), theirs[item], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"score": lambda x: x.mean()}, "one number per item"),
        ({"score": lambda x: x.mean(dim=(2, 3))}, "one number per item"),
        ({"fill": float("nan")}, "fill"),
        ({"fractions": (0.0, float("nan"))}, "fractions"),
        ({"patch_size": (9, 9)}, "exceeds the input"),
    ],
)
def test_what_gives_no_curve_is_refused(per, inputs, change, said):
    from attnlib.errors import InputError

    given = {"score": one_patch, "maps": torch.rand(2, *GRID), **change}
    with pytest.raises(InputError, match=said):
        per.deletion(given.pop("score"), inputs, given.pop("maps"), **given)
