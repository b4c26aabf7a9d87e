"""The viewer: all layers, heads and queries of a record in the reader's hand, with or without a kernel."""

from __future__ import annotations

import base64
import io
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from attnlib.bands import LIFT_CUTS, RED_LIFT
from attnlib.errors import BudgetError, InputError
from attnlib.picture import Picture, load_picture
from attnlib.record import AttentionRecord, Relevance
from attnlib.regions import Regions
from attnlib.widgets.fragment import fragment, page
from attnlib.widgets.image_source import image_layers, picture_parts, put_image_source
from attnlib.widgets.packing import Blob
from attnlib.widgets.palettes import viewer_palettes
from attnlib.widgets.poster import picture_poster, text_poster
from attnlib.widgets.state import checked_place, read_head, read_query
from attnlib.widgets.text_source import MAX_PAGE, put_text_source, text_parts

if TYPE_CHECKING:
    from attnlib.widgets.live import LiveViewer

__all__ = ["Viewer", "viewer"]

_PICTURE_SIDE = 720


@dataclass(eq=False, repr=False)
class Viewer:
    """A packed viewer: shows itself in a notebook, becomes a fragment, a page, or a live widget.

    Parameters
    ----------
    title : heading of a page, and the viewer's name for screen readers.
    document : what the sources are, JSON-ready.
    blob : all numbers and pictures.
    state : the first selection and look.
    poster : a JPEG of the first selection.
    poster_words : what the poster shows.
    records : source number -> (record, item, part), for the live widget.
    """

    title: str
    document: dict[str, Any]
    blob: bytes
    state: dict[str, Any]
    poster: bytes
    poster_words: str
    records: list[tuple[AttentionRecord, int, str | None]] = field(default_factory=list)

    def to_html(self, *, with_poster: bool = True) -> str:
        """Return one self-contained HTML fragment: module, style, numbers and poster; nothing is fetched.

        Put it into any page, also several into one page. It runs live in JupyterLab, in a trusted saved
        notebook, in nbconvert HTML and from ``file://`` without a network; where scripts are not run,
        the poster stays.
        """
        return fragment(
            self.document,
            self.blob,
            self.state,
            poster=self.poster if with_poster else None,
            alt=self.poster_words,
        )

    def save_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a page that stands alone, whole or not at all, and return its path."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(page(self.title, self.to_html()))
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
        return target

    def widget(self) -> LiveViewer:
        """Return the same viewer as a widget that Python can read and set, with the kernel behind it."""
        from attnlib.widgets.live import LiveViewer

        return LiveViewer.from_viewer(self)

    @property
    def size_mb(self) -> float:
        """Size of :meth:`to_html` in MB."""
        return len(self.to_html().encode()) / 1e6

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **_: Any) -> dict[str, Any]:
        del include, exclude
        return {
            "text/html": self.to_html(),
            "image/jpeg": base64.b64encode(self.poster).decode(),
            "text/plain": repr(self),
        }

    def __repr__(self) -> str:
        names = ", ".join(repr(source["name"]) for source in self.document["sources"])
        return f"Viewer({self.title!r}: {names}; {len(self.blob) * 4 / 3e6:.2f} MB)"


def viewer(
    record: AttentionRecord | Mapping[str, AttentionRecord],
    picture: Any = None,
    *,
    regions: Regions | None = None,
    relevances: Mapping[str, Relevance] | None = None,
    item: int = 0,
    layer: int = -1,
    head: int | str = "mean",
    query: tuple[int, int] | int | str | None = None,
    compare: Mapping[str, Any] | None = None,
    palette: str = "bands",
    cuts: tuple[float | int, float | int, float | int] = LIFT_CUTS,
    red: float | int = RED_LIFT,
    small_maps: str = "none",
    view: str = "text",
    budget_mb: float | int | None = None,
    tokens: Sequence[str] | None = None,
    page_size: int = MAX_PAGE,
    max_mb: float | int = 24.0,
    title: str = "Attention",
) -> Viewer:
    """Pack a record for the viewer.

    With a picture, the attention over its patches is shown: between patches, from words to patches
    (cross-attention, or text and image in one sequence: choose a word, see where it looks), and between
    the words, one source each. Without one, only the attention between tokens of text (self and cross).

    Parameters
    ----------
    record : what ``capture`` or ``AttentionRecord.from_weights`` returned; a mapping of names shows
        several (two models, two checkpoints), each as a source that either side can choose.
    picture : what was captured, for records with a patch grid: anything ``load_picture`` takes.
    regions : named parts of the picture: outlines and a table of shares.
    relevances : further maps by name, such as ``{"rollout": explain(record)}``; for several records
        they belong to the first.
    item : which item of the batch.
    layer : the layer shown first, a position in the record; negative counts from the end.
    head : the head shown first, or "mean", "max", "min".
    query : the patch (row, column; also as text "row, column"), or the token of text, shown first;
        None or "" = the row the head reads, or all tokens together.
    compare : what side B shows first, such as ``{"layer": 3}`` or ``{"source": 1}``; turns the side by
        side view on. Keys: source, map, layer, head, query.
    palette : "bands", "colour-blind", "viridis", "inferno" or "cividis".
    cuts, red : where low, moderate and highest begin, and from where highest is drawn red, in multiples
        of the even share.
    small_maps : "none", "heads", "layers" or "all".
    view : for text: "text", "lines" or "matrix".
    budget_mb : most MB of the page that patch queries (default 3) or text (default 16) may take.
    tokens : for text: the tokens' own words, where the record does not know them.
    page_size : most tokens of text on one page, up to 512.
    max_mb : refuse to make a fragment larger than this.
    title : heading.

    Returns
    -------
    A viewer that shows itself at the end of a cell.

    Raises
    ------
    InputError
        If the record has nothing to show, or an option does not exist.
    BudgetError
        If the page would become larger than ``max_mb``.

    Examples
    --------
    >>> import torch
    >>> from attnlib.record import AttentionRecord
    >>> viewer(AttentionRecord.from_weights([torch.eye(3).expand(1, 2, 3, 3)]), title="identity")
    Viewer('identity': 'tokens self'; 0.00 MB)
    """
    records = dict(record) if isinstance(record, Mapping) else {"": record}
    if not records:
        raise InputError("viewer got no record")
    blob, sources, origins = Blob(), [], []
    shown = None if picture is None else load_picture(picture)
    for name, one, part in _source_order(records, shown is not None):
        if shown is not None and part in picture_parts(one):
            several = len(picture_parts(one)) + len(text_parts(one)) > 1
            spec = put_image_source(
                blob,
                one,
                shown,
                part=part,
                name=": ".join(filter(None, (name, part if several else ""))) or "attention",
                item=item,
                regions=regions,
                relevances=None if sources else relevances,
                budget_mb=3.0 if budget_mb is None else budget_mb,
                tokens=tokens,
            )
            spec["picture"] = sources[0]["picture"] if sources else _put_picture(blob, shown)
            sources.append(spec)
        else:
            spec = put_text_source(
                blob,
                one,
                part,
                name=f"{name}: {part}" if name else part,
                item=item,
                layer=layer if -len(text_parts(one)[part]) <= layer < len(text_parts(one)[part]) else -1,
                tokens=tokens,
                page_size=page_size,
                budget_mb=16.0 if budget_mb is None else budget_mb,
                relevances=None if sources else relevances,
            )
            sources.append(spec)
        origins.append((one, item, part))
    if not sources:
        raise InputError("this record holds attention over patches only: give its picture to the viewer")
    palettes = viewer_palettes()
    if palette not in palettes or palette == "difference":
        known = ", ".join(sorted(set(palettes) - {"difference"}))
        raise InputError(f"palette must be one of {known}; got {palette!r}")
    first = {"layer": layer, "head": head, "query": query, "view": view}
    state = {
        "two": compare is not None,
        "a": selection(sources, first),
        "b": selection(sources, {**first, **(compare or {})}),
        "palette": palette,
        "pattern": bool(palettes[palette].get("numbered")),
        "cuts": list(cuts),
        "red": red,
        "multiples": small_maps,
    }
    if not 0 < cuts[0] < cuts[1] < cuts[2] <= red:
        raise InputError(f"cuts must increase and end at or below red={red}, got {cuts}")
    if small_maps not in ("none", "heads", "layers", "all"):
        raise InputError(f"small_maps must be none, heads, layers or all; got {small_maps!r}")
    document = {"title": title, "sources": sources, "palettes": palettes, "kernel": False}
    first_record = next(iter(records.values()))
    poster, words = _poster(first_record, shown, sources[0], state["a"], item, title, tokens)
    _guard(blob.whole_size, max_mb)
    packed = blob.tobytes()
    document["split"] = blob.split
    return Viewer(title, document, packed, state, poster, words, origins)


def _source_order(
    records: Mapping[str, AttentionRecord], picture: bool
) -> list[tuple[str, AttentionRecord, str]]:
    """Return (name, record, part) of every source: the first of each record, then the further ones."""
    rows = []
    for name, record in records.items():
        parts = [*picture_parts(record), *text_parts(record)] if picture else [*text_parts(record)]
        rows += [(picture and place > 0, name, record, part) for place, part in enumerate(parts)]
        if picture:
            image_layers(record)  # a picture was given: say so where there is nothing to show over it
    return [(name, record, part) for _, name, record, part in sorted(rows, key=lambda row: row[0])]


def selection(sources: list[dict[str, Any]], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Turn Python's words for a selection into the viewer's, and check them against the sources.

    Raises
    ------
    InputError
        If a key, a source, layer, head or query does not exist.
    """
    unknown = set(wanted) - {"source", "map", "layer", "head", "query", "view", "direction", "words"}
    if unknown:
        raise InputError(f"a selection has no {sorted(unknown)}; it has source, map, layer, head, query")
    number = checked_place(wanted.get("source", 0), len(sources), "source")
    spec = sources[number]
    made: dict[str, Any] = {"source": number, "map": 0, "row": 0, "query": None, "direction": "from"}
    if wanted.get("view", "text") not in ("text", "lines", "matrix"):
        raise InputError(f"view must be text, lines or matrix; got {wanted['view']!r}")
    made |= {"view": wanted.get("view", "text"), "words": bool(wanted.get("words", False))}
    made["direction"] = wanted.get("direction", "from")
    for axis in ("layer", "head"):
        value = read_head(wanted.get(axis, 0))
        if isinstance(value, str):
            if value not in ("mean", "max", "min"):
                raise InputError(f"{axis} must be a number, 'mean', 'max' or 'min'; got {value!r}")
            made |= {axis: 0, f"{axis}s": value}
            continue
        count = len(spec["layers"]) if axis == "layer" else len(spec["layers"][made["layer"]]["heads"])
        made |= {axis: checked_place(value, count, axis), f"{axis}s": "one"}
    if wanted.get("map"):
        names = [one["name"] for one in spec.get("maps", [])]
        value = wanted["map"]
        if isinstance(value, str):
            if value not in names:
                raise InputError(f"there is no map {value!r}; there are {names}")
            value = names.index(value) + 1
        made["map"] = checked_place(value, len(names) + 1, "map")
    query = wanted.get("query")
    if spec["kind"] == "image":
        patch = read_query(query) if isinstance(query, (tuple, list, str, type(None))) else (query,)
        if patch is not None and len(patch) != 2:
            raise InputError(f"the query of a picture is a patch (row, column), got {query!r}")
        if patch is not None:
            made["query"] = [checked_place(v, n, "query") for v, n in zip(patch, spec["grid"], strict=True)]
    elif query is not None and query != "":
        made["query"] = checked_place(query, spec["query_pages"][0][1], "query token on the first page")
    return made


def _put_picture(blob: Blob, picture: Picture) -> dict[str, Any]:
    image = picture.to_pil()
    image.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=85)
    return {**blob.put_bytes(buffer.getvalue()), "mime": "image/jpeg"}


def _poster(
    record: AttentionRecord,
    picture: Picture | None,
    spec: dict[str, Any],
    state: dict[str, Any],
    item: int,
    title: str,
    tokens: Sequence[str] | None,
) -> tuple[bytes, str]:
    whole_layers = state["layers"] != "one"
    head = state["head"] if state["heads"] == "one" else state["heads"]
    place = -1 if whole_layers else state["layer"]
    index = spec["layers"][place]["index"]
    words = f"{title}: layer {index}, " + (f"head {head}" if isinstance(head, int) else f"{head} over heads")
    if picture is None:
        part = next(iter(text_parts(record)))
        poster = text_poster(record, part=part, place=place, head=head, item=item, tokens=tokens)
        return poster, f"{words}, as a matrix"
    original = image_layers(record)[place][0].heads
    chosen = original[head] if original is not None and isinstance(head, int) else head
    query = tuple(state["query"]) if state["query"] else None
    return picture_poster(
        record, picture, title=words, place=place, head=chosen, query=query, item=item
    ), words


def _guard(size: int, max_mb: float | int) -> None:
    megabytes = size * 4 / 3e6
    if megabytes > max_mb:
        raise BudgetError(
            f"the viewer would hold {megabytes:.1f} MB, more than max_mb={max_mb:g}: fewer layers "
            "(record.select(layers=...)), a smaller budget_mb, or .widget() with a kernel would be lighter"
        )
