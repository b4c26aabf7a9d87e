"""One picture through one model: capture, method, bands and what the model said, ready to be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnlib.bands import Bands, band_map
from attnlib.errors import InputError, NeedsError
from attnlib.evaluate.answer import first_answer
from attnlib.hooks import capture
from attnlib.methods import METHODS, explain
from attnlib.models import LoadedModel, Prepared, Said, load_model
from attnlib.picture import Picture, load_picture
from attnlib.record import AttentionRecord, Relevance

__all__ = ["DEFAULT_MODEL", "Mapped", "map_picture"]

DEFAULT_MODEL = "dinov2-small-saliency"
"""Model of a report when none is named: real, pretrained, and at hand without a network."""


@dataclass(frozen=True, eq=False)
class Mapped:
    """A picture, what a model made of it, and where it looked.

    Parameters
    ----------
    picture : upright, as it was read.
    loaded : the model.
    prepared : what went into it.
    record : its attention.
    relevance, bands : the map, and its four bands.
    said : what the model answered.
    query : whose view was asked for, as it was given.
    """

    picture: Picture
    loaded: LoadedModel
    prepared: Prepared
    record: AttentionRecord
    relevance: Relevance
    bands: Bands
    said: Said
    query: Any = None

    def __repr__(self) -> str:
        return f"Mapped({self.picture.name!r}, {self.loaded.name!r}, {self.relevance.method!r})"


def map_picture(
    picture: Any,
    *,
    model: str | LoadedModel = DEFAULT_MODEL,
    method: str | None = None,
    query: Any = None,
    target: Any = None,
    size: int | None = None,
    start_layer: int | None = None,
    options: Mapping[str, Any] | None = None,
    scale: str = "lift",
    cuts: Sequence[float | int] | None = None,
) -> Mapped:
    """Run a model on a picture and say where it looked.

    Parameters
    ----------
    picture : path, sample name, bytes, PIL image, array or Picture.
    model : name for :func:`attnlib.load_model`, or a model that is loaded.
    method : as for :func:`attnlib.explain`; if omitted, the one that the scoreboard speaks for:
        "gradient_rollout" for a model that gives each picture a label, "rollout" for any other; where the
        layers cannot be multiplied, "raw" of the last one, and a note says so.
    query : as for :func:`attnlib.explain`.
    target : what a gradient method explains; the model's own first answer if omitted.
    size : pixels of the longer side of the model input; the model's own choice if omitted.
    start_layer : first layer of a method that multiplies layers. If omitted, 0 where gradients weigh the
        attention, and else the middle one: from layer 0, a few artifact patches take over the rollout of
        many pretrained transformers.
    options : further options of the method.
    scale, cuts : as for :func:`attnlib.band_map`.

    Raises
    ------
    AttnlibError
        If a step fails; says which and what to do.
    """
    shown = load_picture(picture)
    loaded = load_model(model) if isinstance(model, str) else model
    prepared = loaded.prepare([shown], size=size)
    chosen_method = method or ("gradient_rollout" if loaded.labels else "rollout")
    try:
        record = _captured(loaded, prepared, chosen_method, target)
    except NeedsError:
        if method is not None or chosen_method == "rollout":
            raise
        chosen_method = "rollout"  # labels of pixels or boxes: no one score to explain
        record = _captured(loaded, prepared, chosen_method, None)
    card = METHODS[chosen_method]
    seen = record.over_picture()
    chosen = dict(options or {})
    if start_layer is not None:
        chosen["start_layer"] = start_layer
    elif any(option.name == "start_layer" for option in card.options):
        chosen.setdefault("start_layer", 0 if "gradients" in card.needs else len(seen.layers) // 2)
    try:
        relevance = explain(seen, chosen_method, query=query, **chosen)
    except (InputError, NeedsError) as error:
        if method is not None or options or start_layer is not None:
            raise
        relevance = explain(seen, "raw", query=query)
        note = f"This is one layer's attention: {chosen_method} does not work for this model ({error})."
        relevance.notes = (note, *relevance.notes)
    said = loaded.said(record.output, views=record.views)
    bands = band_map(relevance, scale=scale, cuts=cuts)
    return Mapped(shown, loaded, prepared, seen, relevance, bands, said, query)


def _captured(loaded: LoadedModel, prepared: Prepared, method: str, target: Any) -> AttentionRecord:
    """Capture what a method needs."""
    card = METHODS[method]
    return capture(
        loaded,
        prepared,
        target=(first_answer if target is None else target) if card.explains_target else None,
        internals=card.needs_internals,
    )
