"""Relevance: what a method says about each token, before any drawing."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.errors import InputError, LayoutError
from attnlib.layout import TokenLayout
from attnlib.picture import View
from attnlib.record.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Relevance"]

_FORMAT = "attnlib.relevance/1"


@dataclass(eq=False, repr=False)
class Relevance:
    """One score per token, as the method gives it.

    Parameters
    ----------
    scores : [batch, key], or [batch, query, key] when every query was asked for.
    layout : which token is which, on the key axis.
    method : name of the method.
    options : the choices that were made.
    query : the rows that were asked for, in words: "class", "mean of the patches", "patch (3, 4)".
    provenance : where it came from.
    identity : the part of ``scores`` that stands there because the method starts from the identity
        (the query itself), same shape as ``scores``; None if the method has no such part.
    seen : True for tokens that are real, False for padding, [batch, key]; None = all are real.
    notes : sentences a reader of the map must know.
    views : one per item: which part of each picture the model saw; empty = the whole picture.
    """

    scores: Tensor
    layout: TokenLayout
    method: str = "given"
    options: Mapping[str, Any] = field(default_factory=dict)
    query: str = "given"
    provenance: Provenance = field(default_factory=Provenance)
    identity: Tensor | None = None
    seen: Tensor | None = None
    notes: tuple[str, ...] = ()
    views: tuple[View, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.scores, Tensor):
            self.scores = torch.as_tensor(self.scores)
        if self.scores.dim() not in (2, 3) or not self.scores.is_floating_point():
            raise InputError(
                "scores must be floating [batch, key] or [batch, query, key], got "
                f"{self.scores.dtype} {list(self.scores.shape)}"
            )
        if self.scores.shape[-1] != self.layout.num_tokens:
            raise InputError(
                f"scores have {self.scores.shape[-1]} tokens, the layout {self.layout.num_tokens}"
            )

    @property
    def batch_size(self) -> int:
        """Number of items in the batch."""
        return self.scores.shape[0]

    @property
    def signed(self) -> bool:
        """Whether any score is negative."""
        return bool((self.scores < 0).any())

    def heatmap(self) -> Float[Tensor, "batch *query height width"]:
        """Return the patch part on the grid, values untouched.

        Raises
        ------
        LayoutError
            If the stream has no patch grid.
        """
        if self.layout.grid is None:
            raise LayoutError("this relevance is over text tokens: it has no heatmap; use .scores")
        return self.scores[..., self.layout.patch_slice].unflatten(-1, self.layout.grid)

    def share(self, *, without_identity: bool = False) -> Float[Tensor, "batch *query height width"]:
        """Return the positive part over the patches that were seen, divided by its sum.

        Parameters
        ----------
        without_identity : first subtract the part that stands there because the method starts from
            the query itself.

        Returns
        -------
        Shares of mass that sum to 1 per item; all 0 where nothing is positive.
        """
        positive = self.positive(without_identity=without_identity)
        return positive / _nonzero(positive.sum(dim=(-2, -1), keepdim=True))

    def positive(self, *, without_identity: bool = False) -> Float[Tensor, "batch *query height width"]:
        """Return the positive part of the heatmap, 0 on padding."""
        heat = self.heatmap()
        if without_identity and self.identity is not None:
            heat = heat - self.identity[..., self.layout.patch_slice].unflatten(-1, heat.shape[-2:])
        heat = heat.clamp(min=0)
        if self.seen is not None:
            seen = self.seen[..., self.layout.patch_slice].unflatten(-1, heat.shape[-2:])
            heat = torch.where(seen if heat.dim() == 3 else seen[:, None], heat, 0.0)
        return heat

    def lift(self, *, without_identity: bool = False) -> Float[Tensor, "batch *query height width"]:
        """Return the share in multiples of the even share, 1 / (number of patches seen)."""
        return self.share(without_identity=without_identity) * self.num_seen()

    def num_seen(self) -> Tensor:
        """Return the number of patches seen per item, shaped to broadcast over a heatmap."""
        lead = (1,) * (self.scores.dim() - 2)
        if self.seen is None:
            return torch.full((self.batch_size, *lead, 1, 1), float(self.layout.num_patches))
        count = self.seen[..., self.layout.patch_slice].sum(dim=-1).to(self.scores.dtype)
        return count.reshape(self.batch_size, *lead, 1, 1)

    def prefix_share(self) -> Float[Tensor, "batch *query"]:
        """Return the share of all positive mass that fell on tokens other than patches."""
        positive = self.scores.clamp(min=0)
        total = positive.sum(dim=-1)
        return (total - positive[..., self.layout.patch_slice].sum(dim=-1)) / _nonzero(total)

    def effective_share(self) -> Float[Tensor, "batch *query"]:
        """Return exp(entropy) / N: the share of patches over which the mass effectively spreads."""
        share = self.share().flatten(-2)
        entropy = torch.special.entr(share).sum(dim=-1)
        count = self.num_seen().flatten(-2)[..., 0]
        return torch.where(share.sum(dim=-1) > 0, entropy.exp() / count, torch.zeros_like(entropy))

    def to_frame(self) -> pd.DataFrame:
        """Return a table: one row per item and token (per query too, for all queries)."""
        import pandas as pd

        lead = [range(n) for n in self.scores.shape[:-1]]
        names = ["item", "query"][: len(lead)]
        index = pd.MultiIndex.from_product([*lead, range(self.scores.shape[-1])], names=[*names, "token"])
        frame = pd.DataFrame({"score": self.scores.detach().cpu().flatten().numpy()}, index=index)
        frame = frame.reset_index()
        positions = [self.layout.patch_position(i) for i in range(self.layout.num_tokens)]
        frame["label"] = [self.layout.label(int(i)) for i in frame["token"]]
        if self.layout.grid is not None:
            frame["row"] = [p[0] if (p := positions[int(i)]) else None for i in frame["token"]]
            frame["column"] = [p[1] if (p := positions[int(i)]) else None for i in frame["token"]]
            full = torch.zeros_like(self.scores)
            full[..., self.layout.patch_slice] = self.share().flatten(-2)
            frame["share"] = full.detach().cpu().flatten().numpy()
        return frame

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write scores and description to one safetensors file, whole or not at all."""
        from safetensors.torch import save

        tensors = {"scores": self.scores, "identity": self.identity, "seen": self.seen}
        held = {k: t.detach().cpu().contiguous() for k, t in tensors.items() if t is not None}
        about = {
            "format": _FORMAT,
            "layout": self.layout.to_dict(),
            "method": self.method,
            "options": dict(self.options),
            "query": self.query,
            "provenance": self.provenance.to_dict(),
            "notes": list(self.notes),
            "views": [asdict(view) for view in self.views],
        }
        data = save(held, metadata={"attnlib": json.dumps(about, default=str)})
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Relevance:
        """Read what :meth:`save` wrote.

        Raises
        ------
        InputError
            If the file is not a relevance file.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(os.fspath(path), "pt") as file:
                about = json.loads((file.metadata() or {}).get("attnlib", "{}"))
                held = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise InputError(f"{Path(path).name} is not a relevance file: {error}") from None
        if about.get("format") != _FORMAT:
            raise InputError(f"{Path(path).name} is not a relevance file of format {_FORMAT}")
        return cls(
            held["scores"],
            TokenLayout.from_dict(about["layout"]),
            about["method"],
            about["options"],
            about["query"],
            Provenance.from_dict(about["provenance"]),
            held.get("identity"),
            held.get("seen"),
            tuple(about["notes"]),
            tuple(_view(view) for view in about["views"]),
        )

    def __repr__(self) -> str:
        return f"Relevance({self.method}, {self.query}, scores {list(self.scores.shape)}, {self.layout})"


def _view(values: Mapping[str, Any]) -> View:
    return View(**{key: tuple(value) for key, value in values.items()})


def _nonzero(total: Tensor) -> Tensor:
    return torch.where(total > 0, total, torch.ones_like(total))
