"""Claim, Section and Interpretation: what was found, ready to be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnlib.interpretation.numbers import MapNumbers, RegionNumbers

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SCHEMA", "Claim", "Interpretation", "Section"]

SCHEMA = "attnlib.interpretation/1"
"""Name and version of the JSON form."""


@dataclass(frozen=True)
class Claim:
    """One statement about one region, with the numbers that it stands on.

    Parameters
    ----------
    region : name of the region; of several that are told together: "3 further lines of text".
    band : "minimal", "low", "moderate" or "highest".
    share, area, lift : share of the attention, share of the picture, multiples of the even share.
    text : the sentence (or few) that a reader sees.
    kind : of the region (see :class:`attnlib.Region`), or "several".
    members : names of the regions that are told together; one name otherwise.
    peak : lift of the strongest patch.
    stability : range over the views (see :class:`Stability`); None if it was not looked at.
    evidence : what else was looked at: "rank" (a mapping), and where a check was made "position", "use" and
        "spread" (objects with ``sentence()`` and ``to_dict()``).
    certain : False where a check failed, and the text says so.
    """

    region: str
    band: str
    share: float
    area: float
    lift: float
    text: str
    kind: str = "mask"
    members: tuple[str, ...] = ()
    peak: float = 0.0
    stability: Any = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    certain: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {
            "region": self.region,
            "kind": self.kind,
            "members": list(self.members or (self.region,)),
            "band": self.band,
            "share": self.share,
            "area": self.area,
            "lift": self.lift,
            "peak": self.peak,
            "stability": None if self.stability is None else self.stability.to_dict(),
            "evidence": {name: _plain(value) for name, value in self.evidence.items()},
            "certain": self.certain,
            "text": self.text,
        }


@dataclass(frozen=True)
class Section:
    """A heading and the sentences under it.

    Parameters
    ----------
    key : stable name: "subject", "short", "colours", "highest", "moderate", "low", "minimal", "picture",
        "comparison", "why", "limits", "sources".
    title : heading.
    lines : one bullet each.
    """

    key: str
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Interpretation:
    """What a map says about the named parts of a picture, in words bound to numbers.

    Parameters
    ----------
    claims : at most twelve, in the order of the text.
    sections : the whole text.
    numbers : every region that was measured, claimed or not.
    map_numbers : what holds for the whole map.
    about : method, query, options and model of the map, as plain values.
    notes : what finders and checks reported: nothing found, unsure, failed, not made.
    checks : results of the checks that were made, by name.
    """

    claims: tuple[Claim, ...]
    sections: tuple[Section, ...]
    numbers: tuple[RegionNumbers, ...]
    map_numbers: MapNumbers
    about: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    checks: Mapping[str, Any] = field(default_factory=dict)

    def section(self, key: str) -> Section | None:
        """Return a section by its key, or None if the text has no such section."""
        return next((section for section in self.sections if section.key == key), None)

    def claim(self, region: str) -> Claim | None:
        """Return the claim that names a region, or None if there is none."""
        return next((c for c in self.claims if region == c.region or region in c.members), None)

    def to_frame(self) -> pd.DataFrame:
        """Return a table of all regions: the numbers behind the sentences."""
        import pandas as pd

        return pd.DataFrame([numbers.to_dict() for numbers in self.numbers])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {
            "schema": SCHEMA,
            "about": _plain(self.about),
            "map": self.map_numbers.to_dict(),
            "claims": [claim.to_dict() for claim in self.claims],
            "regions": [numbers.to_dict() for numbers in self.numbers],
            "checks": {name: _plain(value) for name, value in self.checks.items()},
            "sections": [{"key": s.key, "title": s.title, "lines": list(s.lines)} for s in self.sections],
            "notes": list(self.notes),
        }

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the JSON form; its ``schema`` field names the version."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    def to_text(self) -> str:
        """Return the text for a terminal."""
        from attnlib.interpretation.render import to_text

        return to_text(self)

    def to_markdown(self, *, level: int = 2) -> str:
        """Return the text as Markdown; words that were read in the picture cannot act as markup.

        Parameters
        ----------
        level : level of the headings.
        """
        from attnlib.interpretation.render import to_markdown

        return to_markdown(self, level=level)

    def to_html(self, *, level: int = 2) -> str:
        """Return the text as an HTML fragment, everything escaped.

        Parameters
        ----------
        level : level of the headings.
        """
        from attnlib.interpretation.render import to_html

        return to_html(self, level=level)

    def _repr_html_(self) -> str:
        return self.to_html(level=3)

    def _repr_markdown_(self) -> str:
        return self.to_markdown(level=3)

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return f"Interpretation({len(self.claims)} claims about {len(self.numbers)} regions)"


def _plain(value: Any) -> Any:
    """Return JSON-ready values of dataclasses, mappings, sequences and numbers."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)
