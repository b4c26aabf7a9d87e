import numpy as np
import pytest
import torch

GRID = (5, 7)


@pytest.fixture(scope="module")
def loc():
    from attnlib.evaluate import localisation

    return localisation


@pytest.fixture
def masks():
    masks = torch.zeros(3, *GRID)
    masks[0, 1:3, 2:5] = 1
    masks[1, 4, 6] = 1
    masks[2, 0, :] = 0.5
    return masks


ALL = ["mass_inside", "pointing_game", "iou", "average_precision", "grid_pointing"]


@pytest.mark.parametrize("name", ALL)
def test_the_truth_as_a_map_gets_the_best_value(loc, masks, name):
    best = getattr(loc, name)(masks, masks)
    # the third mask covers patches by half, so no map over patches can be better than half of it
    top = {"pointing_game": 1.0, "iou": 1 / 3, "average_precision": 0.5}.get(name, 0.5)
    torch.testing.assert_close(best, torch.tensor([1.0, 1.0, top]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["mass_inside", "average_precision", "grid_pointing"])
def test_a_constant_map_gets_the_share_of_the_area(loc, masks, name):
    value = getattr(loc, name)(torch.full_like(masks, 0.3), masks)
    torch.testing.assert_close(value, masks.mean(dim=(1, 2)), atol=1e-6, rtol=1e-5)


def test_a_constant_map_points_as_well_as_chance(loc, masks):
    hits = loc.pointing_game(torch.ones_like(masks), masks)
    torch.testing.assert_close(hits, (masks > 0).float().mean(dim=(1, 2)))


@pytest.mark.parametrize("threshold", ["area", "mean"])
def test_a_constant_map_never_beats_chance_in_iou(loc, masks, threshold):
    area = masks.mean(dim=(1, 2))
    value = loc.iou(torch.ones_like(masks), masks, threshold=threshold)
    assert (value <= area + 1e-6).all()


def test_worked_example_of_every_measure(loc):
    maps = torch.tensor([[[4.0, 3.0], [2.0, -1.0]]])
    masks = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    assert loc.mass_inside(maps, masks).item() == pytest.approx(5 / 9)
    assert loc.pointing_game(maps, masks).item() == 0
    assert loc.iou(maps, masks).item() == pytest.approx(1 / 3)
    assert loc.iou(maps, masks, threshold="mean").item() == pytest.approx(1 / 3)
    assert loc.average_precision(maps, masks).item() == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_masks_in_pixels_are_averaged_over_each_patch(loc):
    mask = torch.zeros(1, 10, 21, dtype=torch.bool)
    mask[0, :2, :3] = True
    mask[0, 2, 3:6] = True
    covered = loc.coverage(mask, GRID)
    assert covered[0, 0, 0] == 1
    assert covered[0, 1, 1] == pytest.approx(0.5)
    assert covered.sum() == pytest.approx(1.5)


def test_average_precision_equals_that_of_single_pixels(loc):
    from sklearn.metrics import average_precision_score

    generator = torch.Generator().manual_seed(3)
    maps = torch.randn(2, *GRID, generator=generator)
    mask = torch.rand(2, 20, 21, generator=generator) > 0.7
    enlarged = maps.repeat_interleave(4, 1).repeat_interleave(3, 2)
    for item in range(2):
        truth = average_precision_score(mask[item].flatten().numpy(), enlarged[item].flatten().numpy())
        assert loc.average_precision(maps, mask)[item].item() == pytest.approx(truth, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "theirs"), [("mass_inside", "RelevanceMassAccuracy"), ("pointing_game", "PointingGame")]
)
def test_a_measure_equals_that_of_quantus(loc, masks, name, theirs):
    quantus = pytest.importorskip("quantus")
    maps = torch.rand(3, *GRID, generator=torch.Generator().manual_seed(5))
    binary = (masks > 0).float()
    metric = getattr(quantus, theirs)(abs=False, normalise=False, disable_warnings=True)
    wanted = metric(
        model=torch.nn.Identity(),
        x_batch=np.zeros((3, 1, *GRID), np.float32),
        y_batch=np.zeros(3, int),
        a_batch=maps[:, None].numpy(),
        s_batch=binary[:, None].numpy().astype(bool),
        device="cpu",
    )
    ours = getattr(loc, name)(maps, binary).numpy()
    np.testing.assert_allclose(ours, np.array(wanted, dtype=float), rtol=1e-5)


def test_permuting_the_batch_permutes_the_values(loc, masks):
    maps = torch.rand(3, *GRID, generator=torch.Generator().manual_seed(7))
    order = torch.tensor([2, 0, 1])
    for name in ALL:
        measure = getattr(loc, name)
        torch.testing.assert_close(measure(maps, masks)[order], measure(maps[order], masks[order]))


def test_a_map_without_positive_mass_has_none_inside(loc, masks):
    assert loc.mass_inside(-torch.ones_like(masks), masks).tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ALL)
def test_an_empty_mask_has_no_value_and_spoils_no_other(loc, masks, name):
    maps = torch.rand(3, *GRID, generator=torch.Generator().manual_seed(8))
    empty = masks.clone()
    empty[1] = 0
    value = getattr(loc, name)(maps, empty)
    assert value.isnan().tolist() == [False, True, False]
    torch.testing.assert_close(value[[0, 2]], getattr(loc, name)(maps, masks)[[0, 2]])


@pytest.mark.parametrize("name", ALL)
def test_a_mask_of_everything_is_found_by_every_map(loc, name):
    maps = torch.rand(2, *GRID, generator=torch.Generator().manual_seed(8)) + 0.1
    torch.testing.assert_close(getattr(loc, name)(maps, torch.ones(2, *GRID)).float(), torch.ones(2))


def test_highest_patches_that_tie_share_the_hit(loc):
    maps, masks = torch.zeros(1, *GRID), torch.zeros(1, *GRID)
    maps[0, 1, 1] = maps[0, 2, 2] = maps[0, 3, 3] = 5
    masks[0, 2, 2] = 1
    assert loc.pointing_game(maps, masks).item() == pytest.approx(1 / 3)
    assert loc.iou(maps, masks).item() == pytest.approx((1 / 3) / (2 - 1 / 3))


def test_unusable_maps_are_refused(loc, masks):
    from attnlib.errors import InputError

    with pytest.raises(InputError, match="not finite"):
        loc.mass_inside(torch.full_like(masks, torch.nan), masks)
    with pytest.raises(InputError, match="2 maps came with 3 masks"):
        loc.iou(masks[:2], masks)
    with pytest.raises(InputError, match="threshold"):
        loc.iou(masks, masks, threshold="otsu")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("spoil", [lambda m: m * 255, lambda m: -m, lambda m: m / 0, lambda m: m[0]])
def test_masks_that_are_no_shares_are_refused(loc, masks, name, spoil):
    from attnlib.errors import InputError

    maps = torch.rand(3, *GRID, generator=torch.Generator().manual_seed(9))
    with pytest.raises(InputError, match=r"masks"):
        getattr(loc, name)(maps, spoil(masks))


@pytest.mark.parametrize("size", [(3, 4), GRID, (15, 14), (50, 7), (23, 31), (1, 1)])
def test_masks_of_any_size_give_a_constant_map_the_share_of_their_area(loc, size):
    mask = torch.rand(2, *size, generator=torch.Generator().manual_seed(10)) > 0.4
    value = loc.mass_inside(torch.ones(2, *GRID), mask)
    assert ((value > 0) & (value <= 1)).all()
    tiles = all(a % b == 0 or b % a == 0 for a, b in zip(size, GRID, strict=True))
    if tiles:
        torch.testing.assert_close(value, mask.float().mean(dim=(1, 2)))
    else:
        torch.testing.assert_close(value, mask.float().mean(dim=(1, 2)), atol=0.15, rtol=0)
