"""Opening the explorer: the public door."""

from __future__ import annotations

from typing import Any

from attnlib.errors import InputError
from attnlib.models import LoadedModel
from attnlib.record import AttentionRecord
from attnlib.regions import Regions
from attnlib.widgets.bench import Bench
from attnlib.widgets.explorer import Explorer, read_target
from attnlib.widgets.image_source import image_layers
from attnlib.widgets.state import ExplorerState, read_head, read_query

__all__ = ["explore"]


def explore(
    model: LoadedModel | str | AttentionRecord = "dinov2-small-saliency",
    picture: Any = "sample:poster",
    *,
    method: str = "rollout",
    options: dict[str, Any] | None = None,
    target: Any = None,
    layer: int = -1,
    head: int | str = "mean",
    query: tuple[int, int] | str | None = None,
    regions: Regions | str | None = "find",
    palette: str = "bands",
    size: int | tuple[int, int] | None = None,
) -> Explorer:
    """Open the explorer: one picture, one model, every layer, head, query and method.

    The first picture is there when this returns; charts, parts of the picture and the text follow on
    another thread (``.wait()`` waits for them).

    Parameters
    ----------
    model : what ``load_model`` returned or takes, or a record that was captured elsewhere.
    picture : anything ``load_picture`` takes.
    method : a name in METHODS, or "attention" for layers and heads only.
    options : options of the method.
    target : what a gradient method explains.
    layer : the layer shown first, a position; negative counts from the end.
    head : the head shown first (also as text), or "mean", "max", "min".
    query : a patch (row, column), also as text; None or "" = the row the head reads.
    regions : "find" looks for text and faces; named regions; None = none.
    palette : a palette of the viewer.
    size : size of the model input, as for ``LoadedModel.prepare``.

    Returns
    -------
    A widget; put it at the end of a cell.

    Raises
    ------
    AttnlibError
        If the model, the picture or the method cannot be used.
    """
    state = ExplorerState(
        method=method, options=dict(options or {}), target=read_target(target), palette=palette
    )
    bench = Bench(state)
    bench.size = size
    bench.take_picture(picture)
    if isinstance(model, AttentionRecord):
        state.model = model.provenance.model
        bench.take_record(model)
    elif isinstance(model, str):
        state.model = model
    else:
        bench.take_model(model)
    if not isinstance(regions, str):
        bench.take_regions(regions if regions is not None else Regions((), bench.size_of_picture()))
    elif regions != "find":
        raise InputError(f"regions must be 'find', Regions or None, got {regions!r}")
    explorer = Explorer(bench)
    first = explorer.steps()
    for _, step in first[1:3] if isinstance(model, AttentionRecord) else first[:3]:
        step()
    depth = len(image_layers(bench.vision()))
    if not -depth <= layer < depth:
        raise InputError(f"layer {layer} does not exist: there are {depth}")
    state.layer = layer % depth
    state.choose_query(read_query(query))
    head = read_head(head)
    if isinstance(head, int):
        state.head, state.heads = head, "one"
    else:
        state.heads = head
    explorer.show()
    explorer.worker.start(explorer.later())
    return explorer
