"""Opening the explorer: the public door."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from attnlib.errors import InputError
from attnlib.finders.libraries import load as load_finders
from attnlib.models import LoadedModel, load_model
from attnlib.picture import Picture
from attnlib.record import AttentionRecord
from attnlib.regions import Regions
from attnlib.widgets.beforehand import load_beforehand
from attnlib.widgets.bench import Bench
from attnlib.widgets.explorer import Explorer
from attnlib.widgets.image_source import picture_parts
from attnlib.widgets.state import FOLDS, ExplorerState, read_head, read_query, read_target, read_token
from attnlib.widgets.text_bench import PICTURE_SUFFIXES, SAMPLE_TEXTS, TextBench, reads_text

__all__ = ["explore"]

_USUAL = "dinov2-small-saliency"
_HEAVY = "transformers.modeling_utils"


def explore(
    model: Any = _USUAL,
    picture: Any = None,
    *,
    method: str = "rollout",
    options: dict[str, Any] | None = None,
    target: Any = None,
    layer: int = -1,
    head: int | str = "mean",
    query: tuple[int, int] | int | str | None = None,
    layers: str = "one",
    direction: str = "from",
    shown: str = "method",
    regions: Regions | str | None = "find",
    palette: str = "bands",
    size: int | Sequence[int] | None = None,
) -> Explorer:
    """Open the explorer: one picture or text, one model, every layer, head, query and method.

    The first picture is there when this returns; charts, parts of the picture and the text follow on
    another thread (``.wait()`` waits for them). So does the method's map where it takes seconds (inputs
    of many tokens): until then layers and heads are shown. In a notebook the kernel loads the libraries
    of the usual model when it first rests after ``explore`` was imported.

    Parameters
    ----------
    model : what ``load_model`` returned or takes, or a record that was captured elsewhere. A picture alone
        (a file, "sample:NAME", pixels) is shown with the usual model.
    picture : anything ``load_picture`` takes; for a model of text a text, a pair of texts (tuple) or a
        list of them. A sample if omitted; a record of a picture needs its own.
    method : a name in METHODS, or "attention" for layers and heads only.
    options : options of the method.
    target : what a gradient method explains.
    layer : the layer chosen first, a position; negative counts from the end.
    head : the head chosen first (also as text), or "mean", "max", "min".
    query : a patch (row, column) or the number of a token, also as text; None or "" = the row the head
        reads.
    layers : "one" shows the layer, "mean", "max" or "min" merges all of them.
    direction : "from" = where the query looks, "to" = who looks at it.
    shown : "method" opens with the map of the method, "attention" with that of the layer and head.
    regions : "find" looks for text and faces; named regions; None = none. Pictures only.
    palette : a palette of the viewer.
    size : size of the model input, as for ``LoadedModel.prepare``. Pictures only.

    Returns
    -------
    A widget; put it at the end of a cell.

    Raises
    ------
    AttnlibError
        If the model, the picture, the text or the method cannot be used.

    Examples
    --------
    ``explore("minilm-l6", ["Time flies like an arrow.", "Fruit flies like a banana."])``
    """
    state = ExplorerState(
        method=method, options=dict(options or {}), target=read_target(target), palette=palette
    )
    if picture is None and _is_picture(model):
        model, picture = _USUAL, model
    bench: Bench | None = None
    if isinstance(model, str) and regions == "find" and _is_picture(picture):
        bench = Bench(state)
        bench.take(picture)
        if _HEAVY not in sys.modules:  # loading it keeps one core busy; later the first picture goes first
            load_finders()  # first, for two threads that load libraries may see them half loaded
            bench.look()
    record, loaded = (model, None) if isinstance(model, AttentionRecord) else (None, _loaded(model))
    if record is not None and picture is None and picture_parts(record):
        raise InputError(
            "this record is of a picture: give explore that picture too, explore(record, picture)"
        )
    text = reads_text(loaded) if loaded is not None else record is not None and not picture_parts(record)
    if bench is None or text:
        bench = TextBench(state) if text else Bench(state)
    bench.size = size if size is None or isinstance(size, int) else (int(size[0]), int(size[1]))
    if isinstance(bench, TextBench):
        if picture is not None or record is None:
            bench.take(list(SAMPLE_TEXTS) if picture is None else picture)
    else:
        if bench.picture is None:
            bench.take(_picture_for(loaded, picture))
        if not isinstance(regions, str):
            bench.take_regions(regions if regions is not None else Regions((), bench.size_of_picture()))
        elif regions != "find":
            raise InputError(f"regions must be 'find', Regions or None, got {regions!r}")
    if record is not None:
        state.model = record.provenance.model
        bench.take_record(record)
    elif loaded is not None:
        bench.take_model(loaded)
    explorer = Explorer(bench)
    name, explaining = explorer.steps()[2]
    bench.needs_internals()  # an unknown method is refused before anything is loaded
    if record is None:
        bench.load()
    bench.capture()
    chosen = read_token(query) if text else read_query(query)
    lost = bench.query_problem(chosen)
    if lost is not None:
        raise InputError(lost)
    state.choose_query(chosen)
    behind = bench.is_large()  # then the method comes after the first picture, as charts and words do
    if not behind:
        explaining()
    depth = bench.depth()
    if not -depth <= layer < depth:
        raise InputError(f"layer {layer} does not exist: there are {depth}")
    if layers not in FOLDS or direction not in ("from", "to") or shown not in ("method", "attention"):
        raise InputError(
            f"layers is one of {', '.join(FOLDS)}, direction is from or to, shown is method or attention; "
            f"got {layers!r}, {direction!r}, {shown!r}"
        )
    state.layer, state.layers, state.direction, state.shown = layer % depth, layers, direction, shown
    head = read_head(head)
    if isinstance(head, int):
        state.head, state.heads = head, "one"
    else:
        state.heads = head
    explorer.show()
    later = explorer.later()
    begun = 0 if text else 1  # the search for parts of a picture runs beside the method
    first = [(name, explaining), ("drawing", explorer.show)] if behind else []
    explorer.worker.start([*later[:begun], *first, *later[begun:]])
    return explorer


def _is_picture(given: Any) -> bool:
    if isinstance(given, (str, os.PathLike)):
        name = os.fspath(given)
        return name.startswith("sample:") or Path(name).suffix.lower() in PICTURE_SUFFIXES
    return isinstance(given, (Picture, Image.Image, np.ndarray, bytes))


def _loaded(model: Any) -> LoadedModel:
    if isinstance(model, (str, os.PathLike)):
        return load_model(os.fspath(model))
    if isinstance(model, LoadedModel):
        return model
    raise InputError(
        "explore takes a model (a name, a folder, or what load_model returned), a record, or a picture "
        f"first; got {type(model).__name__}. A model of your own: "
        "record = attnlib.capture(model, inputs), then explore(record, picture)"
    )


def _picture_for(loaded: LoadedModel | None, picture: Any) -> Any:
    """Return the picture that was given, a sample if none was; say so if it is text."""
    if picture is None:
        return "sample:poster"
    if isinstance(picture, (list, tuple)) and picture and all(isinstance(one, str) for one in picture):
        name = "this record" if loaded is None else loaded.name
        raise InputError(f"{name} takes pictures: give explore one picture, or a model of text for texts")
    return picture


load_beforehand()
