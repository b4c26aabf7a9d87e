"""Does a map lie where the thing is? Maps against masks, one value per item.

Maps are [batch, height, width] on the patch grid, masks either the same (the fraction of every patch
that the thing covers, 0..1) or [batch, rows, columns] in pixels, which are averaged over each patch.
Negative values of a map count as 0 wherever mass is measured. Where a mask is empty there is nothing to
find: every measure gives NaN, which means and intervals leave out. Maps that are not finite are refused.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from attnlib.errors import InputError, MissingPackageError

__all__ = ["average_precision", "coverage", "grid_pointing", "iou", "mass_inside", "pointing_game"]


def coverage(masks: Tensor, grid: tuple[int, int]) -> Float[Tensor, "batch height width"]:
    """Return the fraction of every patch that a mask covers.

    Parameters
    ----------
    masks : [batch, rows, columns], boolean or 0..1; rows and columns need not be multiples of the grid.

    Raises
    ------
    InputError
        If they have other axes, or values outside 0..1 (a mask of 0 and 255 is no share).
    """
    given = torch.as_tensor(masks).float()
    if given.dim() != 3:
        raise InputError(f"masks must be [batch, rows, columns], got {list(given.shape)}")
    if not bool(((given >= 0) & (given <= 1)).all()):
        raise InputError(
            f"masks must be boolean or 0..1, got {float(given.min()):g}..{float(given.max()):g}: take "
            "mask > 0, or divide by the largest value"
        )
    if tuple(given.shape[1:]) == tuple(grid):
        return given
    return F.interpolate(given[:, None], size=grid, mode="area")[:, 0]


def mass_inside(maps: Float[Tensor, "batch height width"], masks: Tensor) -> Float[Tensor, "batch"]:
    r"""Return the share of the map's positive mass that lies inside the mask.

    .. math:: \sum_p s_p\,c_p, \quad s = \text{map}^+ / \sum \text{map}^+

    A constant map gets the share of the area; a map without positive mass gets 0. Quantus calls it
    relevance mass accuracy [1]_.

    References
    ----------
    .. [1] Arras, Osman & Samek, "CLEVR-XAI", Information Fusion 2022, arXiv:2003.07258.
    """
    covered = _covered(maps, masks)
    positive = maps.clamp(min=0)
    total = positive.sum(dim=(-2, -1))
    inside = (positive * covered).sum(dim=(-2, -1))
    return _known(
        torch.where(total > 0, inside / total.where(total > 0, torch.ones_like(total)), 0.0), covered
    )


def pointing_game(maps: Float[Tensor, "batch height width"], masks: Tensor) -> Float[Tensor, "batch"]:
    """Return 1 where the highest patch touches the mask, 0 where it does not.

    Ties are not broken by position: the value is the share of the highest patches that hit, so a
    constant map gets what chance gets [1]_.

    References
    ----------
    .. [1] Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016. There the point
       may miss by 15 pixels; here it may miss by less than a patch.
    """
    covered = _covered(maps, masks)
    highest = maps == maps.amax(dim=(-2, -1), keepdim=True)
    hits = (highest & (covered > 0)).sum(dim=(-2, -1))
    return _known(hits.float() / highest.sum(dim=(-2, -1)), covered)


def iou(
    maps: Float[Tensor, "batch height width"], masks: Tensor, *, threshold: str = "area"
) -> Float[Tensor, "batch"]:
    """Return intersection over union of the mask and the map's highest patches.

    Parameters
    ----------
    maps, masks : see the module.
    threshold : "area" takes as many patches as the mask is large (patches that tie for the last
        places share them), "mean" takes those above the map's own mean, as published segmentation
        results of attention maps do.

    Raises
    ------
    InputError
        If the threshold is unknown.
    """
    covered = _covered(maps, masks)
    if threshold == "mean":
        chosen = (maps > maps.mean(dim=(-2, -1), keepdim=True)).float()
    elif threshold == "area":
        chosen = _top(maps, covered.sum(dim=(-2, -1)))
    else:
        raise InputError(f"threshold must be 'area' or 'mean', got {threshold!r}")
    inside = (chosen * covered).sum(dim=(-2, -1))
    union = chosen.sum(dim=(-2, -1)) + covered.sum(dim=(-2, -1)) - inside
    return _known(inside / union.clamp(min=1e-12), covered)


def average_precision(maps: Float[Tensor, "batch height width"], masks: Tensor) -> Float[Tensor, "batch"]:
    """Return the average precision of finding the mask's pixels by their patch's value.

    Each patch counts as many right and wrong pixels as the mask covers of it. A constant map gets the
    share of the area. NaN where the mask is empty.

    Raises
    ------
    MissingPackageError
        If scikit-learn is not installed.
    """
    try:
        from sklearn.metrics import average_precision_score
    except ImportError:
        raise MissingPackageError(
            'average precision needs scikit-learn: pip install "attnlib[evaluation]"'
        ) from None
    covered = _covered(maps, masks).flatten(1).double()
    values = maps.flatten(1).double()
    truth = torch.cat([torch.ones_like(covered[0]), torch.zeros_like(covered[0])]).numpy()
    results = []
    for value, cover in zip(values, covered, strict=True):
        if not bool(cover.any()):
            results.append(float("nan"))
            continue
        weight = torch.cat([cover, 1 - cover]).clamp(min=0).numpy()
        results.append(
            float(average_precision_score(truth, torch.cat([value, value]).numpy(), sample_weight=weight))
        )
    return torch.tensor(results)


def grid_pointing(maps: Float[Tensor, "batch height width"], quarters: Tensor) -> Float[Tensor, "batch"]:
    """Return the share of mass inside the right quarter of a 2x2 picture of different classes.

    The same number as :func:`mass_inside` with a quarter as the mask; a constant map gets 0.25, and so
    does any map that does not depend on the class, on average over the four classes [1]_.

    References
    ----------
    .. [1] Böhle, Fritz & Schiele, "Convolutional Dynamic Alignment Networks", CVPR 2021,
       arXiv:2104.00032.
    """
    return mass_inside(maps, quarters)


def _known(values: Tensor, covered: Tensor) -> Tensor:
    """Return the values, NaN where the mask is empty."""
    return values.where(covered.flatten(1).any(dim=1), torch.full_like(values, float("nan")))


def _covered(maps: Tensor, masks: Tensor) -> Tensor:
    if maps.dim() != 3:
        raise InputError(f"maps must be [batch, height, width], got {list(maps.shape)}")
    if len(masks) != len(maps):
        raise InputError(f"{len(maps)} maps came with {len(masks)} masks")
    if not bool(torch.isfinite(maps).all()):
        raise InputError("the maps hold values that are not finite")
    return coverage(masks, (maps.shape[1], maps.shape[2])).to(maps.dtype)


def _top(maps: Tensor, count: Tensor) -> Tensor:
    """Return how far each patch belongs to the ``count`` highest, 0..1; ties share what is left."""
    flat = maps.flatten(1)
    higher = (flat[:, None, :] > flat[:, :, None]).sum(dim=2)
    equal = (flat[:, None, :] == flat[:, :, None]).sum(dim=2)
    return ((count[:, None] - higher) / equal).clamp(0, 1).reshape(maps.shape)
