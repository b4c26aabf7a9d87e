"""What stands beside the map in a report: pictures with words, numbers and where they come from."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from PIL import Image
from torch import Tensor

from attnlib.bands import Bands, percent
from attnlib.errors import AttnlibError
from attnlib.methods import explain
from attnlib.models import Said
from attnlib.picture import Picture, View
from attnlib.profiles import layer_profile
from attnlib.record import Relevance
from attnlib.regions import Regions
from attnlib.report.manifest import versions
from attnlib.report.mapping import Mapped
from attnlib.report.outputs import PROVENANCE
from attnlib.viz import PALETTES, facts, legend_rows, overlay_image, picture_image, profile_svg, strip_image
from attnlib.viz.placing import Placement
from attnlib.viz.static import coloured, laid_over
from attnlib.viz.svg import Svg
from attnlib.viz.theme import SEQUENTIAL
from attnlib.widgets import Viewer, viewer

__all__ = [
    "Still",
    "Told",
    "layers_panel",
    "legend_table",
    "map_panel",
    "origin",
    "profile_panel",
    "said_panel",
    "viewer_panel",
]


@dataclass(frozen=True, eq=False)
class Still:
    """A picture with words for those who cannot see it; shown in JupyterLab and in a report alike.

    Parameters
    ----------
    image : what is shown.
    alt : what it shows, in words.
    """

    image: Image.Image
    alt: str

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, Any], dict[str, Any]]:
        import base64

        kind, data = _encoded(self.image)
        return {kind: base64.b64encode(data).decode(), "text/plain": self.alt}, {"alt": self.alt}

    def __repr__(self) -> str:
        return f"Still({self.image.width}x{self.image.height} px, {self.alt!r})"


@dataclass(frozen=True)
class Told:
    """A piece of HTML with its words as plain text, and data for the manifest of the report.

    Parameters
    ----------
    markup : the HTML, everything in it escaped.
    plain : the same in plain text.
    data : what the manifest takes over.
    """

    markup: str
    plain: str
    data: dict[str, Any] = field(default_factory=dict)

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        bundle: dict[str, Any] = {"text/html": self.markup, "text/plain": self.plain}
        return {**bundle, PROVENANCE: self.data} if self.data else bundle

    def __repr__(self) -> str:
        return self.plain


def legend_table(relevance: Relevance, bands: Bands, *, index: int = 0, palette: str = "bands") -> Told:
    """Return the legend of a map as a table: colour, cuts, mass and area; and the numbers beside it.

    Parameters
    ----------
    relevance, bands : the map and its bands.
    index : which item of the batch.
    palette : name of the band palette.
    """
    rows = legend_rows(bands, PALETTES[palette], index)
    head = "<tr><th>colour</th><th>band</th><th>lift</th>"
    head += '<th class="number">share of mass</th><th class="number">share of area</th></tr>'
    cells = [
        f'<tr><td><span class="swatch" style="display:inline-block;width:1.1em;height:1.1em;'
        f'border:1px solid #59636e;background:{row.colour or "transparent"}"></span> {row.word}</td>'
        f'<td>{row.band}</td><td>{row.range}</td><td class="number">{percent(row.mass)}</td>'
        f'<td class="number">{percent(row.area)}</td></tr>'
        for row in rows
    ]
    lines = facts(relevance, bands, index)
    listed = "".join(f"<li>{escape(line)}</li>" for line in lines)
    plain = "\n".join([*(f"{row.band}: {row.text}" for row in rows), *lines])
    return Told(f"<table>{head}{''.join(cells)}</table><ul>{listed}</ul>", plain)


def origin(relevance: Relevance, picture: Picture, *, loaded: Any = None, in_short: str = "") -> Told:
    """Return where a map comes from, as a table and for the manifest.

    Parameters
    ----------
    relevance : the map.
    picture : the picture it lies on.
    loaded : the LoadedModel.
    in_short : one sentence for the index of several reports.
    """
    made = relevance.provenance
    card = getattr(loaded, "card", None)
    data: dict[str, Any] = {
        "picture": {
            "name": picture.name,
            "sha256": picture.sha256,
            "file_sha256": picture.file_sha256,
            "size": list(picture.size),
        },
        "model": made.model,
        "weights": getattr(card, "source", ""),
        "licence": getattr(card, "licence", ""),
        "attention_from": made.source,
        "method": relevance.method,
        "options": {name: str(value) for name, value in relevance.options.items()},
        "query": relevance.query,
        "tokens": str(relevance.layout),
        "notes": [*picture.notes, *(n for v in relevance.views for n in v.notes), *made.notes],
        "in_short": in_short,
    }
    if relevance.views:
        view = relevance.views[0]
        data["model_input"] = {"size": list(view.input_size), "box": list(view.box)}
    rows = {
        "picture": f"{picture.name}, {picture.size[1]}x{picture.size[0]} px, {_hash(picture)}",
        "model": " - ".join(part for part in (made.model, data["weights"], data["licence"]) if part),
        "model input": f"{relevance.views[0].input_size[1]}x{relevance.views[0].input_size[0]} px"
        if relevance.views
        else "",
        "tokens": data["tokens"],
        "attention": f"seen as {made.source}",
        "method": ", ".join(
            [relevance.method, *(f"{k}={v}" for k, v in data["options"].items() if v != "None")]
        ),
        "query": relevance.query,
        "notes": " ".join(data["notes"]),
        "versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
    }
    kept = {name: words for name, words in rows.items() if words}
    body = "".join(f"<tr><th>{name}</th><td>{escape(words)}</td></tr>" for name, words in kept.items())
    plain = "\n".join(f"{name}: {words}" for name, words in kept.items())
    return Told(f"<table>{body}</table>", plain, data)


def _hash(picture: Picture) -> str:
    """Return what tells this picture from others: the hash of its file, or of its pixels if it has none."""
    if picture.file_sha256:
        return f"SHA-256 of the file {picture.file_sha256}"
    return f"SHA-256 of the pixels {picture.sha256}"


def said_panel(said: Said, picture: Picture, *, views: Sequence[View] = (), index: int = 0) -> Told | Still:
    """Return what the model answered, beside ``print(said)``: a table of labels or similarities, or a map.

    Parameters
    ----------
    said : what the model said.
    picture : the picture it was said about.
    views : which part of each picture the model saw.
    index : which item of the batch.
    """
    if said.maps is not None:
        return _said_map(said.maps[index], said.sentences[index], picture, views[index : index + 1])
    sentence = said.sentences[index]
    told = "" if said.scores else f"<p>{escape(sentence)}</p>"
    if said.scores:
        rows = "".join(
            f'<tr><td>{escape(name)}</td><td class="number">{number:.3f}</td></tr>'
            for name, number in said.scores[index][:5]
        )
        head = '<tr><th>answer</th><th class="number">score</th></tr>'
        told = f"<table>{head}{rows}</table>"
    return Told(told, "\n".join([sentence, *said.notes]))


def _said_map(answer: Tensor, sentence: str, picture: Picture, views: Sequence[View]) -> Still:
    """Return the predicted map over the picture, 0 to 1."""
    values = answer.double().numpy()
    box = views[0].box if views else (0.0, 0.0, float(picture.size[1]), float(picture.size[0]))
    height, width = values.shape
    placement = Placement((height, width), box, picture.size)
    plain = picture_image(picture, longest=420)
    colours = coloured(values, (0.0, max(1.0, float(values.max()))), SEQUENTIAL, 0.65)
    drawn = laid_over(plain, colours, placement)
    strip = strip_image([plain, drawn], ["the picture", "the model's answer, 0 (dark) to 1 (bright)"])
    return Still(strip, sentence)


def map_panel(
    mapped: Mapped, *, palette: str = "bands", opacity: float | int = 0.55, index: int = 0
) -> Still:
    """Return the picture, and the picture with the map in bands, side by side.

    Parameters
    ----------
    mapped : a picture that was mapped.
    palette : name of the band palette.
    opacity : of the bands.
    index : which item of the batch.
    """
    drawn = overlay_image(
        mapped.relevance,
        mapped.picture,
        index=index,
        bands=mapped.bands,
        palette=palette,
        opacity=opacity,
        legend=False,
        longest=620,
    )
    plain = picture_image(mapped.picture, longest=620)
    query = mapped.relevance.query
    strip = strip_image([plain, drawn], ["the picture", f"{mapped.relevance.method}, seen from: {query}"])
    rows = legend_rows(mapped.bands, PALETTES[palette], index)
    words = "; ".join(f"{row.band}, {row.text}" for row in rows)
    return Still(strip, f"Overlay of {mapped.relevance.method} on {mapped.picture.name}. {words}.")


def layers_panel(mapped: Mapped, *, palette: str = "bands", index: int = 0) -> Still | Told:
    """Return one small overlay per layer: its attention alone, mean of heads, for the same query.

    Parameters
    ----------
    mapped : a picture that was mapped.
    palette : name of the band palette.
    index : which item of the batch.
    """
    images, captions = [], []
    for layer in mapped.record.layers:
        try:
            one = explain(mapped.record, "raw", query=mapped.query, layers=[layer.index])
            options = {"palette": palette, "numbers": False, "legend": False, "longest": 200}
            images.append(overlay_image(one, mapped.picture, index=index, **options))
            captions.append(
                f"layer {layer.index}: max {float(one.lift(without_identity=True)[index].max()):.1f}x"
            )
        except AttnlibError as error:
            captions.append(f"layer {layer.index}: {error}")
    if len(images) < len(captions) or not images:
        listed = "".join(f"<li>{escape(one)}</li>" for one in captions)
        return Told(f"<ul>{listed}</ul>", "\n".join(captions))
    words = "; ".join(captions)
    return Still(strip_image(images, captions, columns=6), f"Attention of each layer on its own. {words}.")


def profile_panel(mapped: Mapped, *, index: int = 0) -> Svg | Told:
    """Return how evenly, how far and how much to prefix tokens each layer attends, or why it is not known.

    Parameters
    ----------
    mapped : a picture that was mapped.
    index : which item of the batch.
    """
    try:
        return profile_svg(layer_profile(mapped.record), index=index)
    except AttnlibError as error:
        words = f"There are no such charts for this model: {error}."
        return Told(f"<p>{escape(words)}</p>", words)


def viewer_panel(
    mapped: Mapped,
    *,
    regions: Regions | None = None,
    palette: str = "bands",
    budget_mb: float | int = 1.0,
) -> Viewer | Told:
    """Return the viewer of every layer and head, or why there is none.

    A map that lies on other patches than the attention, as after stages that merge patches, is left out.

    Parameters
    ----------
    mapped : a picture that was mapped.
    regions : named parts, drawn as outlines.
    palette : name of the band palette.
    budget_mb : what the queries that are held ready may weigh.
    """
    maps = {mapped.relevance.method: mapped.relevance}
    options: dict[str, Any] = {"regions": regions, "palette": palette, "budget_mb": budget_mb}
    problem = ""
    for shown in (maps, None):
        try:
            return viewer(mapped.record, mapped.picture, relevances=shown, **options)
        except AttnlibError as error:
            problem = problem or str(error)
    words = f"There is no viewer for this model: {problem}."
    return Told(f"<p>{escape(words)}</p>", words)


def _encoded(image: Image.Image) -> tuple[str, bytes]:
    """Return the smaller of PNG and a fine JPEG."""
    png, jpeg = io.BytesIO(), io.BytesIO()
    image.save(png, "PNG", optimize=False)
    image.convert("RGB").save(jpeg, "JPEG", quality=90, subsampling=0)
    if png.tell() <= 1.5 * jpeg.tell():
        return "image/png", png.getvalue()
    return "image/jpeg", jpeg.getvalue()
