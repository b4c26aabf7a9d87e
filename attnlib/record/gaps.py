"""Gap: a part of a model that mixes tokens without weights over them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Gap"]


@dataclass(frozen=True)
class Gap:
    """One module that passes information between tokens and has no attention weights for it.

    Parameters
    ----------
    name : module path, such as "model.layers.0.linear_attn".
    module : its class name, for the reader.
    reason : why there are no weights, as a sentence part.
    stream : of the attention calls beside it; "" where it is not known.
    place : where it stands among the calls of the stream: 1.5 is between the calls with index 1 and 2,
        1 is beside the call with index 1, in the same layer.
    """

    name: str
    module: str
    reason: str
    stream: str = ""
    place: float = 0.0

    def __str__(self) -> str:
        return f"{self.name} ({self.module}) {self.reason}"
