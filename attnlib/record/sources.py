"""Where attention weights come from: kept projections, or matrices that were given.

A source holds what one attention call left behind and computes any part of its weights on demand.
Indices are positions in what the source holds; LayerAttention translates the original ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.errors import NeedsError

__all__ = ["AttentionSource", "GivenAttention", "ProjectedAttention", "wide"]

Index = slice | list[int]
_FEW = 8  # rows

_NO_GRADIENTS = (
    "this record holds no gradients: use capture(..., target=...), or "
    "capturing(..., gradients=True) and then record.differentiate(score)"
)


def allowed_by(mask: Tensor) -> Tensor:
    """Return where a boolean or additive mask lets a query see a key."""
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return float32, or ``dtype`` if it is wider."""
    return torch.promote_types(dtype, torch.float32)


@runtime_checkable
class AttentionSource(Protocol):
    """One attention call, from which any part of its weights can be computed."""

    kind_of_source: str

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(batch, heads, queries, keys)."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes kept alive by this source."""
        ...

    def weights(self, heads: Index, queries: Index) -> Float[Tensor, "batch head query key"]:
        """Return the post-softmax weights of some heads and query rows."""
        ...

    def gradients(self, heads: Index, queries: Index) -> Float[Tensor, "batch head query key"]:
        """Return d score / d weights of some heads and query rows."""
        ...

    def values(self, heads: Index) -> Float[Tensor, "batch head key dim"]:
        """Return the value vectors, one set per query head."""
        ...


@dataclass(eq=False, repr=False)
class GivenAttention:
    """Weights (and gradients) that exist as matrices: given by hand, or kept by an eager model."""

    attention: Float[Tensor, "batch head query key"]
    gradient: Float[Tensor, "batch head query key"] | None = None
    value: Float[Tensor, "batch kv_head key dim"] | None = None
    kind_of_source: str = "given"
    output_gradient: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(batch, heads, queries, keys)."""
        return tuple(self.attention.shape)  # type: ignore[return-value]

    @property
    def nbytes(self) -> int:
        """Bytes kept alive by this source."""
        held = (self.attention, self.gradient, self.value, self.output_gradient)
        return sum(t.numel() * t.element_size() for t in held if t is not None)

    def weights(self, heads: Index, queries: Index) -> Float[Tensor, "batch head query key"]:
        """Return the weights as they were given, in memory of their own."""
        return _part(self.attention, heads, queries)

    def gradients(self, heads: Index, queries: Index) -> Float[Tensor, "batch head query key"]:
        """Return the gradients as they were given, or dO V^T of a captured call."""
        if self.output_gradient is not None and self.value is not None:
            dtype = wide(self.attention.dtype)
            given = self.output_gradient[:, heads][:, :, queries].to(dtype)
            return torch.matmul(given, self.values(heads).to(dtype).transpose(-1, -2))
        if self.gradient is None:
            if self.value is not None:
                raise NeedsError(_NO_GRADIENTS)
            raise NeedsError("this record holds no gradients: pass gradients= to from_weights")
        return _part(self.gradient, heads, queries)

    def values(self, heads: Index) -> Float[Tensor, "batch head key dim"]:
        """Return the value vectors."""
        if self.value is None:
            raise NeedsError("this record holds no value vectors: capture the model itself")
        return _per_head(self.value, self.attention.shape[1], heads)

    def only_queries(self, rows: list[int]) -> GivenAttention:
        """Return a copy that holds some query rows."""
        return replace(
            self,
            attention=self.attention[:, :, rows],
            gradient=None if self.gradient is None else self.gradient[:, :, rows],
            output_gradient=None if self.output_gradient is None else self.output_gradient[:, :, rows],
        )

    def only_heads(self, heads: list[int]) -> GivenAttention:
        """Return a copy that holds some heads."""
        return GivenAttention(
            self.attention[:, heads],
            None if self.gradient is None else self.gradient[:, heads],
            None if self.value is None else self.values(heads),
            self.kind_of_source,
            None if self.output_gradient is None else self.output_gradient[:, heads],
        )


@dataclass(eq=False, repr=False)
class ProjectedAttention:
    r"""The projected query, key and value of one call; weights are computed when asked for.

    .. math:: A = \mathrm{softmax}(s\,QK^\top + \mathrm{mask}), \qquad
              \partial\,\mathrm{score}/\partial A = \partial O\,V^\top

    Parameters
    ----------
    query, key, value : projections; fewer key/value heads than query heads mean grouped queries.
    mask : boolean (True = may attend) or additive, broadcastable to [batch, head, query, key].
    is_causal : query i sees keys 0..i.
    scale : factor on the dot products.
    output_gradient : gradient of the score at the output of the call, once it is known.
    """

    query: Float[Tensor, "batch head query dim"]
    key: Float[Tensor, "batch kv_head key dim"]
    value: Float[Tensor, "batch kv_head key value_dim"]
    mask: Tensor | None = None
    is_causal: bool = False
    scale: float = 1.0
    output_gradient: Tensor | None = None
    kind_of_source: str = "sdpa"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(batch, heads, queries, keys)."""
        batch, heads, queries, _ = self.query.shape
        return batch, heads, queries, self.key.shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes kept alive by this source."""
        held = (self.query, self.key, self.value, self.mask, self.output_gradient)
        return sum(t.numel() * t.element_size() for t in held if t is not None)

    def weights(self, heads: Index, queries: Index) -> Float[Tensor, "batch head query key"]:
        """Return softmax rows of some heads; fully masked rows are 0."""
        dtype = wide(self.query.dtype)
        query = self.query[:, heads][:, :, queries].to(dtype)
        key = _per_head(self.key, self.query.shape[1], heads).to(dtype)
        scores = _product(query * self.scale, key.transpose(-1, -2))
        allowed = self._masked(scores, heads, queries)
        weights = torch.softmax(scores, dim=-1)
        return weights if allowed is None else torch.where(allowed, weights, 0.0)

    def gradients(self, heads: Index, queries: Index) -> Float[Tensor, "batch head query key"]:
        """Return dO V^T of some heads and query rows."""
        if self.output_gradient is None:
            raise NeedsError(_NO_GRADIENTS)
        dtype = wide(self.query.dtype)
        given = self.output_gradient[:, heads][:, :, queries].to(dtype)
        return torch.matmul(
            given, _per_head(self.value, self.query.shape[1], heads).to(dtype).transpose(-1, -2)
        )

    def values(self, heads: Index) -> Float[Tensor, "batch head key dim"]:
        """Return the value vectors, repeated for grouped queries."""
        return _per_head(self.value, self.query.shape[1], heads)

    def only_heads(self, heads: list[int]) -> ProjectedAttention:
        """Return a copy that holds some heads."""
        mask = self.mask
        if mask is not None and mask.dim() >= 3 and mask.shape[-3] > 1:
            mask = mask.index_select(mask.dim() - 3, torch.tensor(heads, device=mask.device))
        gradient = self.output_gradient
        return replace(
            self,
            query=self.query[:, heads],
            key=_per_head(self.key, self.query.shape[1], heads),
            value=_per_head(self.value, self.query.shape[1], heads),
            mask=mask,
            output_gradient=None if gradient is None else gradient[:, heads],
        )

    def only_queries(self, rows: list[int]) -> ProjectedAttention:
        """Return a copy that holds some query rows; a causal rule becomes a mask of these rows."""
        mask = self.mask
        if mask is not None and mask.dim() >= 2 and mask.shape[-2] > 1:
            mask = mask.index_select(mask.dim() - 2, torch.tensor(rows, device=mask.device))
        if self.is_causal:
            columns = torch.arange(self.shape[3], device=self.query.device)
            earlier = columns[None, :] <= torch.tensor(rows, device=columns.device)[:, None]
            if mask is None:
                mask = earlier
            elif mask.dtype == torch.bool:
                mask = mask & earlier
            else:
                mask = mask.masked_fill(~earlier, -torch.inf)
        gradient = self.output_gradient
        return replace(
            self,
            query=self.query[:, :, rows],
            key=_alone(self.key),
            value=_alone(self.value),
            mask=mask,
            is_causal=False,
            output_gradient=None if gradient is None else gradient[:, :, rows],
        )

    def masked_rows(self) -> int:
        """Count the rows that may attend to nothing."""
        if self.mask is None:
            return 0
        allowed = allowed_by(self.mask)
        if self.is_causal:
            rows = torch.arange(self.shape[2], device=allowed.device)
            allowed = allowed & (torch.arange(self.shape[3], device=allowed.device)[None, :] <= rows[:, None])
        return int((~allowed.any(dim=-1)).sum())

    def _masked(self, scores: Tensor, heads: Index, queries: Index) -> Tensor | None:
        """Apply the mask to ``scores`` in place; return which rows see anything, if any row might not."""
        _, num_heads, num_queries, num_keys = self.shape
        blocked = None
        if self.is_causal:
            rows = torch.arange(num_queries, device=scores.device)[queries]
            columns = torch.arange(num_keys, device=scores.device)
            blocked = columns[None, :] > rows[:, None]
            scores.masked_fill_(blocked, -torch.inf)
        if self.mask is None:
            return None
        mask = self.mask
        while mask.dim() < 4:
            mask = mask.unsqueeze(0)
        if mask.shape[1] == num_heads and num_heads > 1:
            mask = mask[:, heads]
        if mask.shape[2] == num_queries and num_queries > 1:
            mask = mask[:, :, queries]
        scores.masked_fill_(~mask, -torch.inf) if mask.dtype == torch.bool else scores.add_(mask)
        allowed = allowed_by(mask)
        if blocked is not None:
            allowed = allowed & ~blocked
        return allowed.any(dim=-1, keepdim=True)


def _part(kept: Tensor, heads: Index, queries: Index) -> Tensor:
    """Return some heads and rows as a copy: whoever changes it in place must not change what is kept."""
    part = kept[:, heads][:, :, queries]
    found = part.to(wide(part.dtype))
    shared = found.untyped_storage().data_ptr() == kept.untyped_storage().data_ptr()
    return found.clone() if shared else found


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Multiply matrices; for a few rows, item by item, so that strided keys are not copied first."""
    if (
        left.dim() != 4
        or left.shape[0] < 2
        or left.shape[2] > _FEW
        or left.requires_grad
        or right.requires_grad
    ):
        return torch.matmul(left, right)
    return torch.stack([torch.matmul(a, b) for a, b in zip(left, right, strict=True)])


def _alone(tensor: Tensor) -> Tensor:
    """Return the tensor without the rest of a larger one that it is a view of."""
    own = tensor.numel() * tensor.element_size()
    return tensor.clone() if tensor.untyped_storage().nbytes() > own else tensor


def _per_head(tensor: Tensor, num_heads: int, heads: Index) -> Tensor:
    """Return the key or value heads that serve the query heads ``heads``."""
    groups = num_heads // tensor.shape[1]
    if groups == 1:
        return tensor[:, heads]
    wanted = range(num_heads)[heads] if isinstance(heads, slice) else heads
    return tensor[:, [head // groups for head in wanted]]
