"""The panel that takes the present view away: a name and a button for each kind of file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from attnlib.widgets.telling import message

if TYPE_CHECKING:
    from attnlib.widgets.explorer import Explorer

__all__ = ["download_box"]


def download_box(
    explorer: Explorer, guard: Callable[[Callable[..., None]], Callable[..., None]]
) -> widgets.VBox:
    """Return the panel of an explorer.

    Parameters
    ----------
    explorer : whose view is saved, beside the notebook.
    guard : wraps every reaction, so that errors are shown in place.
    """
    name = widgets.Text("attention", description="file name", style={"description_width": "initial"})
    told = widgets.HTML()

    def saver(suffix: str, save: Callable[[Path], Path]) -> widgets.Button:
        button = widgets.Button(description=f"Save {suffix.upper()}", tooltip=f"save as {suffix}")

        def act(_: Any) -> None:
            written = save(Path(Path(name.value or "attention").name + f".{suffix}"))
            words = [f"written to {written}"]
            if suffix in ("yaml", "json"):
                kept = explorer.parameters(written.parent).get("picture")
                beside = kept is not None and kept != explorer.state.picture
                words += [f"and the picture to {kept}"] if beside else []
                words += explorer.beyond_parameters()
            told.value = message(". ".join(one.rstrip(".") for one in words))

        button.on_click(guard(act))
        return button

    buttons = [
        saver("html", lambda path: explorer.save_html(path)),
        saver("png", lambda path: explorer.save_png(path)),
        saver("json", lambda path: explorer.save_json(path)),
        saver("yaml", lambda path: explorer.save_parameters(path)),
    ]
    return widgets.VBox([widgets.HBox([name, *buttons], layout={"flex_flow": "row wrap"}), told])
