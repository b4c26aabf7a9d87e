"""Provenance: where numbers came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Provenance"]


@dataclass(frozen=True)
class Provenance:
    """What produced a record or a relevance: enough to make it again, nothing private.

    Parameters
    ----------
    model : name under which the model was loaded, or its class name.
    source : how the attention was seen, such as "sdpa", "own weights" or "given".
    versions : library name -> version.
    notes : sentences a reader should know, such as fully masked rows or attention sinks.
    """

    model: str = "given"
    source: str = "given"
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {**asdict(self), "versions": dict(self.versions), "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Provenance:
        """Rebuild from :meth:`to_dict`."""
        return cls(**{**values, "notes": tuple(values.get("notes", ()))})
