"""The trust panel: numbers beside a map, each with its baseline and one sentence; as text, table, JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from attnlib.evaluate.measures import MEASURES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Trust", "TrustNumber"]

_SCHEMA = "attnlib.trust/1"
_UNITS = (
    "Units: shares of the mass are fractions of 1 (0.25 is a quarter); rank correlations go from -1 to 1; a "
    "score is in the unit of the model's answer; square brackets hold the 95 % interval over the scenes."
)
_VERDICTS = {
    "no merit alone": "a map that is the same everywhere would have the best value.",
    "look there": "a reason to look at the map, not a fault; what is good can look the same.",
}


@dataclass(frozen=True)
class TrustNumber:
    """One number about a map.

    Parameters
    ----------
    name : the measure, a key of MEASURES.
    value : what the map has.
    baseline : what a map that knows nothing has.
    better : "higher" or "lower".
    sentence : what both say, in plain words.
    source : "this picture", or where the truth is known and on how many scenes.
    low, high : interval of the value, if it is a mean over scenes.
    constant_wins : whether a constant map has the best value, so that the number alone is no merit.
    seconds : what it cost.
    """

    name: str
    value: float
    baseline: float
    better: str
    sentence: str
    source: str
    low: float | None = None
    high: float | None = None
    constant_wins: bool = False
    seconds: float = 0.0

    @property
    def verdict(self) -> str:
        """How it stands against the baseline.

        "better", "no better", "worse"; "no merit alone" where a constant map would win; "look there" where
        the number is a reason to look at the map and not a fault.
        """
        sign = 1 if self.better == "higher" else -1
        gain = sign * (self.value - self.baseline)
        if self.name in MEASURES and MEASURES[self.name].suspicion and gain < -0.05:
            return "look there"
        if self.constant_wins:
            return "worse" if self.better == "lower" and gain < -0.05 else "no merit alone"
        if self.low is not None and self.high is not None and self.low <= self.baseline <= self.high:
            return "no better"
        return "no better" if abs(gain) < 0.02 else "better" if gain > 0 else "worse"


@dataclass(frozen=True)
class Trust:
    """How far a map can be trusted.

    Parameters
    ----------
    method : the method of the map.
    numbers : what was measured, known truth first.
    left_out : check -> why it was not done, and what it would cost.
    notes : sentences a reader must know.
    """

    method: str
    numbers: tuple[TrustNumber, ...]
    left_out: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """What all checks cost together."""
        return sum(number.seconds for number in self.numbers)

    def __getitem__(self, name: str) -> TrustNumber:
        """Return the number of a measure; for this picture if there are two."""
        own = [n for n in self.numbers if n.name == name]
        if not own:
            raise KeyError(f"no number {name!r}; there are {[n.name for n in self.numbers]}")
        return next((n for n in own if n.source == "this picture"), own[0])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per number."""
        import pandas as pd

        return pd.DataFrame([{**asdict(n), "verdict": n.verdict} for n in self.numbers])

    def to_markdown(self) -> str:
        """Return a table, what was left out, and notes."""
        lines = [
            f"**How far to trust this map** ({self.method}; {self.seconds:.1f} s)",
            "",
            "| what it says | value | baseline | against it | measured on |",
            "| --- | ---: | ---: | --- | --- |",
        ]
        lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in self._rows()]
        if not self.numbers:
            lines[2:] = ["Nothing was measured."]
        rest = [f"- {line}" for line in self._rest()]
        return "\n".join([*lines, *([""] if rest else []), *rest]) + "\n"

    def to_html(self) -> str:
        """Return a table without scripts or outside styles; every text is escaped."""
        head = "".join(
            f'<th scope="col">{name}</th>'
            for name in ("what it says", "value", "baseline", "against it", "measured on")
        )
        rows = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self._rows()
        )
        rest = self._rest()
        tail = f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in rest)}</ul>" if rest else ""
        caption = escape(f"How far to trust this map ({self.method}; {self.seconds:.1f} s)")
        return (
            f'<table class="attnlib-trust"><caption>{caption}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{tail}"
        )

    def to_json(self) -> str:
        """Return everything as JSON with a schema version."""
        return json.dumps(self.to_dict(), indent=2)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values with a schema version."""
        return {
            "schema": _SCHEMA,
            "method": self.method,
            "numbers": [{**asdict(n), "verdict": n.verdict} for n in self.numbers],
            "left_out": dict(self.left_out),
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
        }

    def _rest(self) -> list[str]:
        """Return what stands below the table: units, notes, what the verdicts mean, what was not done."""
        verdicts = {number.verdict for number in self.numbers}
        words = [f'"{name}": {meaning}' for name, meaning in _VERDICTS.items() if name in verdicts]
        units = [_UNITS] if self.numbers else []
        return [
            *units,
            *self.notes,
            *words,
            *(f"not done, {name}: {why}" for name, why in self.left_out.items()),
        ]

    def _rows(self) -> list[tuple[str, ...]]:
        rows = []
        for number in self.numbers:
            value = f"{number.value:.2f}"
            if number.low is not None and number.high is not None:
                value += f" [{number.low:.2f}, {number.high:.2f}]"
            rows.append((number.sentence, value, f"{number.baseline:.2f}", number.verdict, number.source))
        return rows

    def __str__(self) -> str:
        return self.to_markdown()

    def __repr__(self) -> str:
        told = ", ".join(f"{n.name} {n.value:.2f}" for n in self.numbers if n.source == "this picture")
        return f"Trust({self.method}, {len(self.numbers)} numbers{f'; {told}' if told else ''})"

    def _repr_html_(self) -> str:
        return self.to_html()

    def _repr_markdown_(self) -> str:
        return self.to_markdown()
