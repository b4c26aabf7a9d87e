"""Known truth: what the scoreboard says about the method of a map."""

from __future__ import annotations

import re

from attnlib.errors import InputError
from attnlib.evaluate.measures import MEASURES
from attnlib.evaluate.panel import TrustNumber
from attnlib.evaluate.scoreboard import noise_name, shipped_scoreboard
from attnlib.record import Relevance

__all__ = ["known_truth", "sentence_of"]

_TRUTHS = (
    "mass_inside",
    "faithfulness",
    "grid_pointing",
    "weights_matter",
    "label_randomisation",
    "label_matters",
)
_FIXED = {"weights_matter": 1.0, "label_randomisation": 1.0, "label_matters": 1.0}


def known_truth(relevance: Relevance) -> tuple[list[TrustNumber], str]:
    """Return how the method did where the truth is known, and a sentence on what that is about.

    Raises
    ------
    InputError
        If the scoreboard has no such row; says why.
    """
    board = shipped_scoreboard()
    model, of_what = _nearest_model(relevance)
    cells = [c for c in board["cells"] if c["model"] == model]
    rows = {c["method"] for c in cells}
    start = relevance.options.get("start_layer")
    row = (
        f"{relevance.method} from {start}" if f"{relevance.method} from {start}" in rows else relevance.method
    )
    own = {c["measure"]: c for c in cells if c["method"] == row}
    if not own:
        why = {r["method"]: r["why"] for r in board["refused"] if r["model"] == model}.get(
            row, "not measured"
        )
        raise InputError(f"no known-truth numbers for {relevance.method!r} on {model}: {why}")
    base = {(c["method"], c["measure"]): c["value"] for c in cells}
    numbers = []
    for measure in _TRUTHS:
        if measure not in own:
            continue
        cell, card = own[measure], MEASURES[measure]
        baseline = _FIXED.get(measure, base.get((noise_name(measure), measure)))
        if baseline is None:
            continue
        source = f"known truth: {model}, {cell['count']} {of_what}"
        told = sentence_of(measure, cell["value"], baseline)
        sentence = f"On generated {of_what}, {told[0].lower()}{told[1:]}"
        if of_what == "sentences":
            sentence = sentence.replace("the thing itself", "the word that decides").replace(
                "patches", "words"
            )
        numbers.append(
            TrustNumber(
                measure, cell["value"], baseline, card.better, sentence, source, cell["low"], cell["high"]
            )
        )
    options = "with its default options" if row == relevance.method else f"from layer {start} on"
    return numbers, (
        f"Known truth tells how {relevance.method} {options} did on a small model whose {of_what} were "
        f"generated; {_own_choices(relevance, row)}it says what to expect of the method, not that this map "
        "is right."
    )


def _own_choices(relevance: Relevance, row: str) -> str:
    """Say which choices of the map are not those that were measured."""
    from attnlib.methods import METHODS

    card = METHODS.get(relevance.method)
    defaults = {} if card is None else {option.name: option.default for option in card.options}
    if row != relevance.method:
        defaults.pop("start_layer", None)
    own = {k: v for k, v in relevance.options.items() if k in defaults and v != defaults[k]}
    if not own:
        return ""
    told = ", ".join(f"{name}={value}" for name, value in own.items())
    return f"this map was made with {told}, which was not measured there; "


def _nearest_model(relevance: Relevance) -> tuple[str, str]:
    """Return the model of the scoreboard that answers in the same way, and what it was shown."""
    if relevance.layout.grid is None:
        return "agreement-bert", "sentences"
    if re.search(r"\btoken \d", relevance.query):  # one word looks at a picture
        return "scenes-captioner", "scenes"
    layout = relevance.layout
    read = layout.readout if isinstance(layout.readout, tuple) else ()
    pools = layout.readout == "patches" or sum(layout.patch_position(index) is not None for index in read) > 1
    registers = any(name.startswith("register") for name in layout.prefix_tokens)
    return ("scenes-registers" if registers else "scenes-mean") if pools else "scenes-vit", "scenes"


def sentence_of(measure: str, value: float, baseline: float) -> str:
    """Return what a number and its baseline say, in plain words."""
    return MEASURES[measure].sentence.format(value=f"{value:.2f}", baseline=f"{baseline:.2f}")
