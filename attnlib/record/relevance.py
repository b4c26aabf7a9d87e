"""Relevance: what a method says about each token, before any drawing."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnlib.errors import InputError, LayoutError
from attnlib.layout import TokenLayout
from attnlib.picture import View
from attnlib.record.indices import as_tensor
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

    if TYPE_CHECKING:
        scores: Tensor
    else:
        scores: Any  # arrays and lists become tensors
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
        self.scores = as_tensor(self.scores, "scores")
        if not self.scores.is_floating_point() and not self.scores.is_complex():
            self.scores = self.scores.to(torch.get_default_dtype())
        if self.scores.dim() not in (2, 3) or not self.scores.is_floating_point():
            raise InputError(
                "scores must be floating [batch, key] or [batch, query, key], got "
                f"{self.scores.dtype} {list(self.scores.shape)}"
            )
        if self.scores.shape[-1] != self.layout.num_tokens:
            raise InputError(
                f"scores have {self.scores.shape[-1]} tokens, the layout {self.layout.num_tokens}"
            )
        if self.identity is not None and self.identity.shape != self.scores.shape:
            raise InputError(
                f"identity is a part of the scores {list(self.scores.shape)}, got {list(self.identity.shape)}"
            )
        shape = (self.scores.shape[0], self.scores.shape[-1])
        if self.seen is not None and (self.seen.dtype != torch.bool or tuple(self.seen.shape) != shape):
            raise InputError(
                f"seen must be bool [batch, key] = {list(shape)}, got {self.seen.dtype} "
                f"{list(self.seen.shape)}"
            )

    @property
    def batch_size(self) -> int:
        """Number of items in the batch."""
        return self.scores.shape[0]

    @property
    def signed(self) -> bool:
        """Whether any score is negative."""
        return bool((self.scores < 0).any())

    def item(self, index: int) -> Relevance:
        """Return one item of the batch, still with its batch axis; negative counts from the end.

        Raises
        ------
        InputError
            If there is no such item.
        """
        size = self.batch_size
        if not -size <= index < size:
            raise InputError(f"there is no item {index}: the relevance holds {size}")
        part = slice(index % size, index % size + 1)
        return replace(
            self,
            scores=self.scores[part],
            identity=None if self.identity is None else self.identity[part],
            seen=None if self.seen is None else self.seen[part],
            views=self.views[part],
            layout=self.layout.of_item(index % size),
        )

    def without_identity(self) -> Relevance:
        """Return the relevance without what stands there only because the method starts from the query."""
        if self.identity is None:
            return self
        return replace(self, scores=self.scores - self.identity, identity=None)

    def identity_share(self) -> Float[Tensor, "batch *query"]:
        """Return the share of the positive patch mass that is there only because of the start, 0 or more."""
        whole, rest = (self.positive(without_identity=one).sum(dim=(-2, -1)) for one in (False, True))
        return torch.where(whole > 0, 1 - rest / _nonzero(whole), 0.0).clamp(min=0)

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
        total = positive.sum(dim=(-2, -1), keepdim=True, dtype=torch.float64)
        return (positive / _nonzero(total)).to(positive.dtype)

    def positive(self, *, without_identity: bool = False) -> Float[Tensor, "batch *query height width"]:
        """Return the positive part of the heatmap, 0 on padding; float32, or wider if the scores are."""
        heat = (self.without_identity() if without_identity else self).heatmap().clamp(min=0)
        heat = heat.to(torch.promote_types(heat.dtype, torch.float32))
        seen = self.patches_seen()
        return torch.where(seen if heat.dim() == 3 else seen[:, None], heat, 0.0)

    def lift(self, *, without_identity: bool = False) -> Float[Tensor, "batch *query height width"]:
        """Return the share in multiples of the even share, 1 / (number of patches seen)."""
        return self.share(without_identity=without_identity) * self.num_seen()

    def patches_seen(self) -> Bool[Tensor, "batch height width"]:
        """Return which patches are real: all but padding, and artifact patches that were set aside.

        Raises
        ------
        LayoutError
            If the stream has no patch grid.
        """
        patches, grid = self.layout.patch_slice, self.layout.grid or (0, 0)
        if self.seen is None:
            return torch.ones(self.batch_size, *grid, dtype=torch.bool, device=self.scores.device)
        return self.seen[:, patches].unflatten(-1, grid).to(self.scores.device)

    def num_seen(self) -> Tensor:
        """Return the number of patches seen per item, shaped to broadcast over a heatmap."""
        wide = torch.promote_types(self.scores.dtype, torch.float32)
        count = self.patches_seen().flatten(1).sum(dim=1).to(wide)
        return count.reshape(self.batch_size, *(1,) * self.scores.dim())

    def prefix_share(self) -> Float[Tensor, "batch *query"]:
        """Return the share of all positive mass that fell on tokens other than patches."""
        positive = self.scores.clamp(min=0).double()
        total = positive.sum(dim=-1)
        share = (total - positive[..., self.layout.patch_slice].sum(dim=-1)) / _nonzero(total)
        return share.to(torch.promote_types(self.scores.dtype, torch.float32))

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
        wide = torch.promote_types(self.scores.dtype, torch.float32)  # numpy has no bfloat16
        scores = self.scores.detach().cpu().to(wide)
        frame = pd.DataFrame({"score": scores.flatten().numpy()}, index=index)
        frame = frame.reset_index()
        positions = [self.layout.patch_position(i) for i in range(self.layout.num_tokens)]
        layouts = [self.layout.of_item(item) for item in range(self.batch_size)]
        frame["label"] = [
            layouts[item].label(int(i)) for item, i in zip(frame["item"], frame["token"], strict=True)
        ]
        if self.layout.grid is not None:
            frame["row"] = [p[0] if (p := positions[int(i)]) else None for i in frame["token"]]
            frame["column"] = [p[1] if (p := positions[int(i)]) else None for i in frame["token"]]
            full = torch.zeros_like(scores)
            full[..., self.layout.patch_slice] = self.share().detach().cpu().flatten(-2)
            frame["share"] = full.flatten().numpy()
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
