"""What is measured about a map, in which direction it is better, and what a map that knows nothing gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["MEASURES", "Measure"]


@dataclass(frozen=True)
class Measure:
    """One number about a map.

    Parameters
    ----------
    title : for a table head.
    better : "higher" or "lower".
    constant : what a constant map gets, in words.
    constant_wins : whether a constant map has the best value there is, so that the number alone is no
        merit.
    sentence : what it says, with ``{value}`` and ``{baseline}``.
    needs_truth : whether masks are needed.
    suspicion : whether a bad value is a reason to look, not a fault: what is good can look the same.
    """

    title: str
    better: str
    constant: str
    sentence: str
    constant_wins: bool = False
    needs_truth: bool = False
    suspicion: bool = False


MEASURES: Mapping[str, Measure] = {
    "mass_inside": Measure(
        "mass inside",
        "higher",
        "the share of the area",
        "{value} of the map's mass lies on the thing itself (an even map: {baseline}).",
        needs_truth=True,
    ),
    "pointing": Measure(
        "pointing",
        "higher",
        "chance",
        "The highest patch touches the thing in {value} of the scenes (noise: {baseline}).",
        needs_truth=True,
    ),
    "iou": Measure(
        "IoU",
        "higher",
        "at most the share of the area",
        "The highest patches, as many as the thing is large, overlap with it by {value} (noise: {baseline}).",
        needs_truth=True,
    ),
    "average_precision": Measure(
        "AP",
        "higher",
        "the share of the area",
        "The map finds the thing's pixels with an average precision of {value} (noise: {baseline}).",
        needs_truth=True,
    ),
    "grid_pointing": Measure(
        "grid",
        "higher",
        "0.25",
        "In a 2x2 grid of classes {value} of the mass lies in the quarter of the class asked for "
        "(an even map: {baseline}).",
        needs_truth=True,
    ),
    "deletion": Measure(
        "deletion",
        "lower",
        "chance (random order)",
        "While the highest patches are hidden first, the mean score is {value} (random order: {baseline}).",
    ),
    "insertion": Measure(
        "insertion",
        "higher",
        "chance (random order)",
        "While the highest patches are kept longest, the mean score is {value} (random order: {baseline}).",
    ),
    "faithfulness": Measure(
        "ins. - del.",
        "higher",
        "0 (random order)",
        "Keeping instead of hiding the highest patches makes a difference of {value} to the score "
        "(random order: {baseline}).",
    ),
    "positive_perturbation": Measure(
        "Chefer pos.",
        "lower",
        "chance (random order)",
        "With the highest patches blackened first, the class is still said in {value} of the steps "
        "(random order: {baseline}).",
    ),
    "negative_perturbation": Measure(
        "Chefer neg.",
        "higher",
        "chance (random order)",
        "With the lowest patches blackened first, the class is still said in {value} of the steps "
        "(random order: {baseline}).",
    ),
    "weights_matter": Measure(
        "random weights",
        "lower",
        "1 (it never changes)",
        "With all weights replaced by noise the map still resembles itself by {value} "
        "(rank correlation; a map of the picture alone: {baseline}).",
    ),
    "label_matters": Measure(
        "other label",
        "lower",
        "1 (it never changes)",
        "Asked for another label, the map resembles itself by {value} (rank correlation; a map that "
        "ignores the label: {baseline}).",
    ),
    "label_randomisation": Measure(
        "random labels",
        "lower",
        "1 (it never changes)",
        "The map resembles that of a twin that was trained on permuted labels by {value} (rank correlation; "
        "a map of the picture alone: {baseline}).",
    ),
    "stability": Measure(
        "stability",
        "higher",
        "1: a constant map wins",
        "Under noise of two per cent the map resembles itself by {value} (rank correlation; a constant map: "
        "{baseline}).",
        constant_wins=True,
    ),
    "sensitivity": Measure(
        "sensitivity",
        "lower",
        "0: a constant map wins",
        "Under noise of two per cent the map changes by up to {value} of its size "
        "(a constant map: {baseline}).",
        constant_wins=True,
    ),
    "hot_background": Measure(
        "hot background",
        "lower",
        "0: a constant map wins",
        "{value} of the mass stands out on patches that show nothing (an even map: {baseline}).",
        constant_wins=True,
        needs_truth=True,
    ),
    "spike_share": Measure(
        "lone spikes",
        "lower",
        "0: a constant map wins",
        "{value} of the mass lies on lone patches far above their surroundings: artifacts, or things as "
        "small as one or two patches (an even map: {baseline}).",
        constant_wins=True,
        suspicion=True,
    ),
    "artifact_share": Measure(
        "artifacts",
        "lower",
        "the share of their area",
        "{value} of the mass lies on patches whose token has an outlying norm: tokens that the model uses "
        "for itself, or the thing it recognised (an even map: {baseline}).",
        suspicion=True,
    ),
    "head_agreement": Measure(
        "heads agree",
        "higher",
        "1: constant maps win",
        "The heads of the last layer resemble one another by {value} (rank correlation; heads that have "
        "nothing to do with each other: {baseline}).",
        constant_wins=True,
    ),
}
"""Every measure by name. Where a constant map wins, its table head is marked and the sentence says so."""
