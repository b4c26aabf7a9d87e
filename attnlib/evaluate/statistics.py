"""Means with intervals, differences between methods on the same pictures, and ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.errors import InputError

__all__ = ["Estimate", "mean_estimate", "mean_ranks", "paired_difference"]


@dataclass(frozen=True)
class Estimate:
    """A mean over items with its bootstrap interval.

    Parameters
    ----------
    value : the mean.
    low, high : ends of the interval; of one item nothing is known beside its value, and both are that.
    count : number of items that had a value.
    """

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        spread = "one item" if self.count == 1 else f"{self.low:.3f}, {self.high:.3f}"
        return f"{self.value:.3f} [{spread}]"


def mean_estimate(
    values: Float[Tensor, "item"], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Return the mean of the values with a percentile bootstrap interval (NaN items are left out).

    Raises
    ------
    InputError
        If no item has a value, there is more than one per item, or the confidence is no share.
    """
    from scipy.stats import bootstrap

    array = torch.as_tensor(values).detach().cpu().double().numpy()
    if array.ndim != 1 or not 0 < confidence < 1:
        raise InputError(
            f"an estimate needs one value per item and a confidence in 0..1, got {list(array.shape)} and "
            f"{confidence}"
        )
    array = array[np.isfinite(array)]
    if array.size == 0:
        raise InputError("no item has a value: nothing to estimate")
    mean = float(array.mean())
    if array.size == 1 or np.ptp(array) == 0:
        return Estimate(mean, mean, mean, int(array.size))
    interval = bootstrap(
        (array,),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(mean, float(interval.low), float(interval.high), int(array.size))


def paired_difference(
    first: Float[Tensor, "item"], second: Float[Tensor, "other"], **options: float
) -> Estimate:
    """Return the mean of ``first - second`` on the same items, with its bootstrap interval.

    The interval is over pictures: it says whether the order of two methods would hold on other scenes
    of this kind, not for other models.

    Raises
    ------
    InputError
        If the two differ in length.
    """
    if first.shape != second.shape:
        raise InputError(f"paired values differ in number: {list(first.shape)} and {list(second.shape)}")
    return mean_estimate(first - second, **options)  # type: ignore[arg-type]


def mean_ranks(values: Float[Tensor, "*rows value"]) -> Float[Tensor, "*rows value"]:
    """Return the rank of each value within its row, from 0; values that tie share the mean of their places.

    A row that is not finite has no order: NaN.
    """
    values = values.contiguous()
    ordered = values.sort(dim=-1).values
    below, up_to = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
    ranks = (below + up_to - 1).double() / 2
    return ranks.masked_fill(~torch.isfinite(values).all(dim=-1, keepdim=True), torch.nan)
