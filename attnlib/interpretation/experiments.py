"""Experiments: change the picture, and watch attention and answer at the same places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from attnlib.bands import BAND_NAMES, LIFT_CUTS
from attnlib.errors import InputError
from attnlib.evaluate.answer import read_answer
from attnlib.hooks import capture
from attnlib.interpretation.wording import band_of
from attnlib.methods import explain
from attnlib.picture import Picture
from attnlib.record import Relevance
from attnlib.regions import Regions

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["attention_and_answer"]


def attention_and_answer(
    pictures: Mapping[str, Picture],
    regions: Regions,
    model: Any,
    *,
    method: str = "rollout",
    query: Any = None,
    size: int | tuple[int, int] | None = None,
    **options: Any,
) -> tuple[pd.DataFrame, dict[str, Relevance]]:
    """Measure the same places in several versions of one picture, in the map and in the answer.

    Parameters
    ----------
    pictures : name -> version, all of the size that the regions have.
    regions : the places.
    model : a LoadedModel.
    method, query, options : as for ``explain``.
    size : input size for ``LoadedModel.prepare``.

    Returns
    -------
    A table with one row per version and place: share, lift and band of the attention; and the answer
    there: for a model that answers with a map, its share on the place and its mean in multiples of the
    mean of the whole map. Beside it, the maps by version.

    Raises
    ------
    InputError
        If a version has another size than the regions.
    """
    import pandas as pd

    rows, maps = [], {}
    for name, picture in pictures.items():
        if picture.size != regions.size:
            raise InputError(f"the version {name!r} has size {picture.size}, the regions {regions.size}")
        record = capture(model, model.prepare([picture], size=size))
        maps[name] = explain(record.over_picture(), method, query=query, **options)
        answer = _answer_shares(record, regions, tuple(model.labels))
        for region, values in regions.shares(maps[name]).items():
            lift = float(values["lift"][0])
            rows.append(
                {
                    "picture": name,
                    "place": region,
                    "share": float(values["share"][0]),
                    "lift": lift,
                    "band": BAND_NAMES[band_of(lift, LIFT_CUTS)],
                    **answer.get(region, {}),
                }
            )
    return pd.DataFrame(rows), maps


def _answer_shares(record: Any, regions: Regions, labels: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Return for an answer that is a map its share and lift on each place; nothing for other answers."""
    answer = read_answer(record.output, labels)
    if answer.kind != "map" or answer.value.shape[0] != 1:
        return {}
    value = answer.value[0].clamp(min=0).double()
    window = record.views[0].box if record.views else None
    cover = regions.on_grid((int(value.shape[0]), int(value.shape[1])), window).double()
    total = float(value.sum())
    result = {}
    for region, patches in zip(regions.names, cover, strict=True):
        share = float((value * patches).sum()) / total if total > 0 else 0.0
        area = float(torch.mean(patches))
        result[region] = {"answer share": share, "answer lift": share / area if area > 0 else 0.0}
    return result
