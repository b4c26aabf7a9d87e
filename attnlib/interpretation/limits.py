"""Why such parts may get attention, and what the map cannot tell: only what applies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attnlib.bands import ARTIFACT_LIFT
from attnlib.interpretation.choose import Measured
from attnlib.interpretation.claims import Section
from attnlib.interpretation.numbers import MapNumbers
from attnlib.interpretation.views import NEEDED
from attnlib.interpretation.wording import count, listed, percent, times

__all__ = ["limits", "unseen_and_overlapping", "why"]


def why(named: Sequence[Measured], numbers: MapNumbers) -> Section | None:
    """Name reasons that may lie behind the attention on text and faces; None if none of them applies.

    A reason is given only for a kind of part that is there and gets at least its even share.
    """
    lines = []
    text = [one for one in named if one.region.kind == "text" and one.numbers.area > 0]
    faces = [one for one in named if one.region.kind == "face" and one.numbers.area > 0]
    for parts, noun, reason in (
        (
            text,
            ("line of text", "lines of text"),
            "Lettering is distinctive, and carries much information wherever words go with pictures; a model "
            "may have learnt to attend to it. This map does not show whether this one did for that reason.",
        ),
        (
            faces,
            ("face", "faces"),
            "Faces matter for finding and recognising people, and pictures made by people are often about "
            "them; a model may have learnt to attend to them. This map does not show whether this one did "
            "for that reason.",
        ),
    ):
        if not parts or numbers.empty:
            continue
        share = sum(one.numbers.share for one in parts)
        area = sum(one.numbers.area for one in parts)
        if area <= 0 or share / area < 1:
            continue
        lift = times(share / area, numbers.bands.cuts)
        lines.append(
            f"{count(len(parts), *noun)} with {percent(share)} of the {numbers.noun} on {percent(area)} of "
            f"the picture ({lift} times the even share): {reason}"
        )
    if not lines:
        return None
    kinds = "this kind of part" if len(lines) == 1 else f"these {len(lines)} kinds of parts"
    lines.append(
        f"Training data: a model learns from its pictures what is worth attending to. If {kinds} stood in "
        f"focus there, the same {numbers.noun} can be habit rather than a use of what stands here."
    )
    return Section("why", f"Why such parts may get {numbers.noun}", tuple(lines))


def unseen_and_overlapping(named: Sequence[Measured]) -> list[str]:
    """Say which parts the model did not see, and that shares of parts that overlap add up to more."""
    lines = []
    unseen = [one.name for one in named if one.numbers.area <= 0]
    if unseen:
        lines.append(
            f"{count(len(unseen), 'part')} with 0 % of their area in what the model saw, so nothing is said "
            f"about: {listed(unseen[:5])}{' and others' if len(unseen) > 5 else ''}."
        )
    apart = [one for one in named if one.region.part_of is None]
    if apart:
        total = sum((one.cover for one in apart[1:]), apart[0].cover)
        double = float((total > 1.05).double().mean())
        if double > 0:
            lines.append(
                f"Parts overlap on {percent(double)} of the patches, so that their shares add up to more "
                "than the whole."
            )
    return lines


def limits(about: Mapping[str, Any], numbers: MapNumbers, uncertain: int, notes: Sequence[str]) -> Section:
    """Say what this map cannot tell."""
    lines = [
        "Attention is not explanation: the numbers above say where the weights of the model lie, not why "
        "it answered as it did. Only a check that hides a part and watches the answer speaks about use."
        if numbers.noun == "attention"
        else "Relevance is what the method assigns, with its own assumptions; that a part matters to the "
        "answer is shown only by a check that hides it and watches the answer.",
    ]
    if about["method"] != "given":
        lines.append(
            f"Another method, other layers or other query rows would give other shares; these are "
            f"{about['method']!r} for {about['query']!r} only."
        )
    if numbers.prefix_share > 0.0005:
        lines.append(
            f"{percent(numbers.prefix_share)} of all positive mass lies on tokens that are no part of the "
            "picture; the shares above are shares of the rest."
        )
    if numbers.identity_share > 0.0005:
        lines.append(
            f"{percent(numbers.identity_share)} of the mass over the picture was there only because the "
            "method starts from the query itself; it was subtracted."
        )
    if numbers.negative_share > 0.0005:
        lines.append(
            f"{percent(numbers.negative_share)} of the total is negative and left out of all shares; it "
            "speaks against what was asked, in the sense of the method."
        )
    if numbers.outside > 0.0005:
        lines.append(
            f"{percent(numbers.outside)} of the {numbers.noun} lies outside the picture, on padding."
        )
    top = float(numbers.lift.max())
    if top >= ARTIFACT_LIFT and not numbers.empty:
        lines.append(
            f"One patch alone gets {times(top)} times the even share. So strong a patch is often an "
            "artifact: a patch in which the model keeps something that is not about this place."
        )
    if uncertain:
        are = "is" if uncertain == 1 else "are"
        lines.append(
            f"{count(uncertain, 'claim')} above {are} worded as uncertain: fewer than {NEEDED} of 8 slightly "
            "changed views of the picture put the part into the same band."
        )
    return Section("limits", "What this map cannot tell", (*lines, *notes))
