"""The checks behind a text: stability, position, use, artifacts; each may fail without the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from attnlib.errors import AttnlibError, InputError, NeedsError
from attnlib.evaluate.again import alike
from attnlib.interpretation.artifacts import Artifacts, find_artifacts
from attnlib.interpretation.causal import causal_check, use_note
from attnlib.interpretation.choose import Measured, Told
from attnlib.interpretation.heads import head_spread
from attnlib.interpretation.place import position_shares
from attnlib.interpretation.remake import MapMaker
from attnlib.interpretation.views import stability_of
from attnlib.picture import Picture, View
from attnlib.record import AttentionRecord, Relevance

__all__ = ["CHECKS", "Checked", "Checker", "chosen_checks", "failure"]

CHECKS = ("stability", "position", "causal", "artifacts")
"""The checks that ``interpret`` can make."""


@dataclass(eq=False)
class Checked:
    """What the checks found.

    Parameters
    ----------
    told : by region.
    notes : for the section on limits.
    results : for the JSON form, by check.
    """

    told: Told = field(default_factory=Told)
    notes: list[str] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)


def failure(error: Exception) -> str:
    """Say in one line why a check could not be made."""
    reason = " ".join(str(error).split())[:300].rstrip(".")
    return reason if isinstance(error, AttnlibError) else f"{type(error).__name__}: {reason}"


def chosen_checks(checks: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the checks to make.

    Raises
    ------
    InputError
        If a name is not known, or there is none.
    """
    if checks is None:
        return ()
    names = CHECKS if checks == "all" else (checks,) if isinstance(checks, str) else tuple(checks)
    wrong = [name for name in names if name not in CHECKS]
    if wrong or not names:
        what = f"no check {wrong[0]!r}" if wrong else "an empty selection of checks (None means no checks)"
        raise InputError(f"{what}; there are {', '.join(CHECKS)} and 'all'")
    return names


class Checker:
    """Makes the checks for one map.

    Parameters
    ----------
    relevance : of one picture.
    picture, loaded : what it was made of.
    target : for methods that need a gradient.
    show_progress : whether a bar is shown while the model runs.
    """

    def __init__(
        self, relevance: Relevance, picture: Picture, loaded: Any, *, target: Any, show_progress: bool
    ) -> None:
        self.relevance, self.picture, self.loaded = relevance, picture, loaded
        self.make = MapMaker.for_relevance(relevance, loaded, picture, target)
        self.show_progress = show_progress
        self._record: AttentionRecord | None = None
        self._comes_again = False

    @property
    def record(self) -> AttentionRecord:
        """The attention for the picture itself, with internals where the model can be taken apart."""
        if self._record is None:
            try:
                self._record = self.make.record(self.picture, internals=True)
            except NeedsError:
                self._record = self.make.record(self.picture)
        return self._record

    def _refuse_another_map(self) -> None:
        """Refuse to compare maps of other pictures with one that does not come out again."""
        if not self._comes_again:
            record = self.make.record(self.picture) if self._record is None else self._record
            self._comes_again = alike(self.make.explained(record).scores, self.relevance.scores)
        if not self._comes_again:
            raise NeedsError(
                f"running {self.relevance.method!r} again on the picture gives another map (another model, "
                "target or size than it was made with?)"
            )

    def artifacts(self, *, set_aside: bool) -> Artifacts:
        """Find the artifact patches."""
        return find_artifacts(self.relevance, self.record, self.make, set_aside=set_aside)

    def check(
        self, names: Sequence[str], claimed: Sequence[Measured], cuts: Sequence[float], *, text: bool
    ) -> Checked:
        """Make checks for the regions that are claimed; one that fails leaves a note.

        Parameters
        ----------
        names : of the checks.
        claimed : the regions.
        cuts : of the bands.
        text : whether there is lettering in the picture.
        """
        checked = Checked()
        evidence: dict[str, dict[str, Any]] = {one.region.name: {} for one in claimed}
        stability: dict[str, Any] = {}
        for name in (check for check in CHECKS if check in names and claimed):
            try:
                if name == "stability":
                    stability = self._stability(claimed, cuts, text)
                    checked.results[name] = {"regions": stability}
                    if self.make.method == "raw":
                        parts = [one.region for one in claimed]
                        spread = head_spread(parts, self.picture.size, self.record, self.make)
                        for region, found in spread.items():
                            evidence[region]["spread"] = found
                elif name == "position":
                    self._position(claimed, evidence, checked)
                elif name == "causal":
                    self._causal(claimed, evidence, checked)
            except Exception as error:  # a model may raise anything; the text must not be lost for it
                checked.notes.append(f"0 results of the check {name!r}: {failure(error)}.")
        checked.told = Told(stability, evidence)
        return checked

    def _stability(self, claimed: Sequence[Measured], cuts: Sequence[float], text: bool) -> dict[str, Any]:
        self._refuse_another_map()
        with self._bar("stability", 8) as step:
            return stability_of(
                [one.region for one in claimed],
                [one.numbers.band for one in claimed],
                self.relevance,
                self.picture,
                self.make,
                cuts,
                text=text,
                progress=step,
            )

    def _position(self, claimed: Sequence[Measured], evidence: dict[str, Any], checked: Checked) -> None:
        raised = [one for one in claimed if one.numbers.band in ("moderate", "highest")]
        if not raised:
            return
        self._refuse_another_map()
        with self._bar("position", 5) as step:
            found = position_shares(
                [one.region for one in raised],
                [one.numbers.share for one in raised],
                self.picture,
                self.make,
                step,
            )
        for region, share in found.items():
            evidence[region]["position"] = share
        checked.results["position"] = {"regions": found}

    def _causal(self, claimed: Sequence[Measured], evidence: dict[str, Any], checked: Checked) -> None:
        parts = [one for one in claimed if one.region.kind not in ("background", "position")]
        if not parts:
            raise NeedsError("there is no named part to hide")
        prepared = self.loaded.prepare([self.picture], size=self.make.size)
        view = prepared.views[0] if prepared.views else View.whole(self.picture.size, self.picture.size)
        with self._bar("use", None) as step:
            found = causal_check(
                [one.region for one in parts],
                [one.numbers.band in ("moderate", "highest") for one in parts],
                self.loaded.model,
                dict(prepared.inputs),
                view,
                self.picture.size,
                labels=tuple(self.loaded.labels),
                progress=step,
            )
        for region, use in found.uses.items():
            evidence[region]["use"] = use
        checked.notes.append(use_note(found))
        checked.results["causal"] = found

    @contextmanager
    def _bar(self, name: str, total: int | None) -> Iterator[Callable[[str], None]]:
        with tqdm(total=total, desc=name, unit="run", leave=False, disable=not self.show_progress) as bar:

            def step(_: str) -> None:
                bar.update()

            yield step
