"""Taking the present view away: a page, a picture, numbers, and the parameters that make it again."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from attnlib.bands import LIFT_CUTS, RED_LIFT, band_map
from attnlib.errors import InputError
from attnlib.record import Relevance
from attnlib.widgets.bench import Bench
from attnlib.widgets.poster import jpeg, text_matrix
from attnlib.widgets.text_bench import TextBench
from attnlib.widgets.text_source import token_share

if TYPE_CHECKING:
    from attnlib.widgets.live import LiveViewer

__all__ = ["FORMAT", "beyond_parameters", "other_source", "parameters_yaml", "view_json", "view_picture"]

FORMAT = "attnlib.view/1"


def view_json(
    bench: Bench,
    relevance: Relevance,
    folder: str | os.PathLike[str] | None = None,
    beyond: Sequence[str] = (),
) -> str:
    """Return the present view as JSON: what was chosen, the map, regions, text and parameters.

    Parameters
    ----------
    bench, relevance : what is shown, and its map.
    folder : where a picture that no file holds is written, as for :meth:`Bench.parameters`.
    beyond : what the parameters cannot make again, one sentence each.
    """
    found = bench.findings
    if found is None:
        raise InputError("there is nothing to export yet")
    content: dict[str, Any] = {
        "format": FORMAT,
        "state": bench.state.to_dict(),
        "parameters": bench.parameters(folder),
        "beyond_parameters": list(beyond),
        "provenance": relevance.provenance.to_dict(),
        "method": relevance.method,
        "query": relevance.query,
        "said": list(found.said),
        **_numbers(bench, relevance),
        "notes": [*relevance.notes, *found.notes],
        "regions": [],
        "interpretation": None,
    }
    if found.regions is not None and len(found.regions):
        content["regions"] = [
            {"name": name, **{key: float(value[0]) for key, value in one.items()}}
            for name, one in found.regions.shares(relevance).items()
        ]
    if found.interpretation is not None:
        content["interpretation"] = json.loads(found.interpretation.to_json())
    return json.dumps(content, ensure_ascii=False, indent=1)


def _numbers(bench: Bench, relevance: Relevance) -> dict[str, Any]:
    if isinstance(bench, TextBench):
        share = token_share(relevance)
        return {"tokens": bench.tokens(), "share": share.tolist(), "lift": (share * len(share)).tolist()}
    return {
        "prefix_share": float(relevance.prefix_share()[0]),
        "share": relevance.share(without_identity=True)[0].tolist(),
        "lift": relevance.lift(without_identity=True)[0].tolist(),
    }


def view_picture(
    bench: Bench, relevance: Relevance, *, suffix: str = ".png", look: Mapping[str, Any] | None = None
) -> bytes:
    """Return the present view as PNG or JPEG bytes: over the picture with its legend, or the matrix.

    Parameters
    ----------
    bench, relevance : what is shown, and its map.
    suffix : ".png", ".jpg" or ".jpeg".
    look : the viewer's state: its cuts, opacity and range are used.
    """
    from attnlib.viz.static import overlay_image

    if isinstance(bench, TextBench):
        state = bench.state
        place = min(state.layer, len(bench.layers()) - 1) if state.layers == "one" else -1
        head = state.head if state.heads == "one" else state.heads
        image = text_matrix(bench.vision(), place=place, head=head)
        return _encoded(image, suffix)
    if bench.picture is None:
        raise InputError("there is no picture to draw over")
    look = look or {}
    style: dict[str, Any] = {"opacity": look["alpha"]} if "alpha" in look else {}
    if bench.state.palette in ("bands", "colour-blind"):
        cuts = (*look["cuts"], look["red"]) if {"cuts", "red"} <= set(look) else None
        style |= {"style": "bands", "palette": bench.state.palette, "bands": band_map(relevance, cuts=cuts)}
        style |= {"numbers": True} if look.get("pattern") else {}
    else:
        style |= {"style": "continuous", "colours": bench.state.palette}
        style |= {"limits": (0.0, float(look["top"]))} if "top" in look else {}
    style |= {"grey": look["grey"]} if "grey" in look else {}
    image = overlay_image(relevance, bench.picture, **style)
    return _encoded(image, suffix)


def _encoded(image: Image.Image, suffix: str) -> bytes:
    if suffix in (".jpg", ".jpeg"):
        return jpeg(image)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def parameters_yaml(parameters: dict[str, Any], beyond: Sequence[str] = ()) -> str:
    """Return parameters as a YAML file that papermill reads.

    Parameters
    ----------
    parameters : of the view.
    beyond : what they cannot make again, one sentence each; told in the file's head.
    """
    notebook = "09_text_attention" if "sentence" in parameters else "01_layers_and_heads"
    lines = [
        f"A view of the explorer. In this folder: papermill {notebook}.ipynb out.ipynb -f THIS_FILE",
        *beyond,
    ]
    plain = ("".join(one if one.isprintable() else " " for one in line) for line in lines)
    head = "".join(f"# {' '.join(line.split())}\n" for line in plain)
    return head + "".join(f"{name}: {_yaml(value)}\n" for name, value in parameters.items())


def _yaml(value: Any) -> str:
    """Return JSON that YAML reads alike: signs beyond 16 bits are one escape there, and DEL is one too."""

    def joined(pair: re.Match[str]) -> str:
        return f"\\U{ord(json.loads(chr(34) + pair[0] + chr(34))):08x}"

    text = json.dumps(value).replace("\x7f", "\\u007f")
    return re.sub(r"\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}", joined, text)


def other_source(viewer: LiveViewer | None) -> str:
    """Say that side A shows another source than words and parameters are about; nothing if it does not."""
    if viewer is None or not viewer.state.get("a", {}).get("source", 0):
        return ""
    sources = viewer.document["sources"]
    shown, first = sources[viewer.state["a"]["source"]]["name"], sources[0]["name"]
    return f"Words, numbers and parameters are of {first!r}; the viewer shows {shown!r}."


def beyond_parameters(bench: Bench, viewer: LiveViewer | None) -> list[str]:
    """Say what of the present view its parameters cannot make again."""
    look = {} if viewer is None else viewer.state
    said = [*bench.beyond_parameters(), *filter(None, [other_source(viewer)])]
    if look.get("two"):
        said.append("Side B is not among the parameters.")
    if (*look.get("cuts", LIFT_CUTS), look.get("red", RED_LIFT)) != (*LIFT_CUTS, RED_LIFT):
        said.append("The cuts of the bands were moved; the parameters use the usual ones.")
    return said
