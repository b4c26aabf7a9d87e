r"""Vectors that tokens send through an attention block, without ever forming [head, query, key, width].

.. math:: T_i(x_j) = \frac{1}{s_i}\,P\Big(\sum_h A^h_{ij}\,W_O^h v^h_j + \delta_{ij}\,x_i\Big)

:math:`P` is the linear part of the norms that follow (centring and gain), :math:`s_i` their deviations
of the vectors that the model really computed. Norms of these vectors come from the Gram matrix of the
heads of each key, so that they cost no axis of the model's width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.errors import CaptureError, NeedsError
from attnlib.methods.windows import refuse_windows
from attnlib.record import LayerAttention
from attnlib.record.internals import BlockInternals, NormMap, NotDecomposable

__all__ = ["PARTS", "PRE_NORM_NOTE", "Decomposed", "block_of"]

PARTS = ("attention", "residual", "norm", "encoder")
PRE_NORM_NOTE = (
    "the blocks of this model normalise before the attention: the norm is inside the value vectors, and "
    "nothing is normalised after the skip connection"
)
_WORKING_SET = 2**19


def block_of(layer: LayerAttention, method: str) -> BlockInternals:
    """Return the internals of a block.

    Raises
    ------
    NeedsError
        If the record was captured without them.
    CaptureError
        If the block could not be taken apart; says why.
    """
    if isinstance(layer.internals, NotDecomposable):
        refuse_windows([layer], method)
        raise CaptureError(f"{method}: {layer.internals.reason}")
    if not isinstance(layer.internals, BlockInternals):
        raise NeedsError(f"{method} needs internals: use capture(model, inputs, internals=True)")
    return layer.internals


@dataclass(eq=False)
class Decomposed:
    """The vectors of one block, for rows that are asked for.

    Parameters
    ----------
    layer : the attention call.
    heads : what each head sends from each token through W_O, P applied.
    stays : the block's input, P applied; None where the skip connection is left out.
    divisor : the deviations of the norms of each row; None without a norm.
    bias : what belongs to no token, P applied.
    shift : what the norms add in the end, also of no token.
    """

    layer: LayerAttention
    heads: Float[Tensor, "batch head key width"]
    stays: Float[Tensor, "batch query width"] | None
    divisor: Float[Tensor, "batch query"] | None
    bias: Float[Tensor, " width"]
    shift: Float[Tensor, "*some width"]

    @classmethod
    def of(cls, layer: LayerAttention, part: str, method: str, *, with_eps: bool = True) -> Decomposed:
        """Take a block apart.

        Parameters
        ----------
        layer : a self-attention call with internals.
        part : "attention" (heads only), "residual" (and the skip connection), "norm" (and the norm of a
            post-norm block), "encoder" (and the second norm, the feed-forward left out of the numerator).
        method : its name, for messages.
        with_eps : count the norms' eps in their deviations.

        Raises
        ------
        CaptureError, NeedsError
            If the block could not be taken apart, or its parts do not add up.
        """
        block = block_of(layer, method)
        values = layer.values().to(block.total.dtype)
        num_heads, dim = values.shape[1], values.shape[3]
        weight = block.output.weight.to(values.dtype)
        split = weight.unflatten(1, (num_heads, dim))
        heads = torch.einsum("bhnv,dhv->bhnd", values, split)
        bias = values.new_zeros(weight.shape[0]) if block.output.bias is None else block.output.bias
        made = cls(layer, heads, None, None, bias.to(values.dtype), values.new_zeros(weight.shape[0]))
        if part != "attention":
            made.stays = block.residual
        if part in ("norm", "encoder") and block.norm is not None:
            made._apply(block.norm, block.total, with_eps)
        if part == "encoder" and block.second_norm is not None and block.second_total is not None:
            made._apply(block.second_norm, block.second_total, with_eps)
        if part in ("residual", "norm"):
            made._check(block.total if part == "residual" else block.out(), with_eps, method)
        return made

    def _apply(self, norm: NormMap, total: Tensor, with_eps: bool) -> None:
        eps = norm.eps if with_eps else 0.0
        deviation = (total.var(dim=-1, unbiased=False) + eps).sqrt()
        self.heads = norm.linear(self.heads)
        self.stays = None if self.stays is None else norm.linear(self.stays)
        self.bias = norm.linear(self.bias)
        self.divisor = deviation if self.divisor is None else self.divisor * deviation
        shift = norm.linear(self.shift.expand(*total.shape[:-1], -1)) / deviation[..., None]
        self.shift = shift if norm.shift is None else shift + norm.shift.to(shift.dtype)

    def _check(self, real: Float[Tensor, "batch query width"], with_eps: bool, method: str) -> None:
        """Verify on a few rows that the vectors add up to what the model computed."""
        last = self.layer.num_queries - 1
        rows = sorted({0, last // 2, last})
        total = self.row_sums(rows)
        scale = real.abs().amax().clamp(min=1e-30)
        worst = float((total - real[:, rows]).abs().amax() / scale)
        allowed = {torch.float64: 1e-5, torch.float32: 1e-3}.get(real.dtype, 1e-1)
        if with_eps and not worst <= allowed:
            raise CaptureError(
                f"{method}: the vectors of {self.layer.name} add up to the sub-layer's output only to "
                f"{worst:.1e} of its largest value"
            )

    def row_sums(self, rows: list[int]) -> Float[Tensor, "batch row width"]:
        """Return the sum of all vectors of some rows, with what belongs to no token."""
        weights = self.layer.weights(queries=rows).to(self.heads.dtype)
        total = torch.einsum("bhrn,bhnd->brd", weights, self.heads) + self.bias
        total = total if self.stays is None else total + self.stays[:, rows]
        total = total if self.divisor is None else total / self.divisor[:, rows, None]
        shift = self.shift if self.shift.dim() < 3 else self.shift[:, rows]
        return total + shift

    @property
    def gram(self) -> Float[Tensor, "batch key head head"]:
        """Dot products between the heads of each key, in float64."""
        heads = self.heads.transpose(1, 2).double()
        return heads @ heads.transpose(-1, -2)

    def norms(self, rows: slice | list[int], gram: Tensor | None = None) -> Float[Tensor, "batch row key"]:
        """Return the Euclidean norms of the vectors of some rows.

        Parameters
        ----------
        rows : query rows.
        gram : what :attr:`gram` returned, if rows are asked for in several blocks.
        """
        gram = self.gram if gram is None else gram
        weights = self.layer.weights(queries=rows)
        by_key = weights.permute(0, 3, 2, 1).double()  # batch, key, row, head
        squared = ((by_key @ gram) * by_key).sum(dim=-1).transpose(1, 2)
        out = squared.clamp(min=0).sqrt().to(weights.dtype)
        numbers = self.numbers(rows)
        if self.stays is not None:
            out[:, range(len(numbers)), numbers] = self.own(weights, numbers).norm(dim=-1).to(out.dtype)
        return out if self.divisor is None else out / self.divisor[:, rows, None].to(out.dtype)

    def own(self, weights: Tensor, numbers: list[int]) -> Float[Tensor, "batch row width"]:
        """Return the vector each row sends to itself, the skip connection included."""
        diagonal = weights[:, :, range(len(numbers)), numbers].to(self.heads.dtype)
        own = torch.einsum("bhr,bhrd->brd", diagonal, self.heads[:, :, numbers])
        return own if self.stays is None else own + self.stays[:, numbers]

    def distances(
        self,
        rows: slice | list[int],
        target: Float[Tensor, "batch query width"],
        *,
        order: int = 2,
        eps: float = 0.0,
    ) -> Float[Tensor, "batch row key"]:
        """Return the norms of ``vector - target`` for some rows, a few rows and keys at a time.

        Parameters
        ----------
        rows : query rows.
        target : what the vectors of each row are compared with.
        order : of the norm, 1 or 2.
        eps : added to each component of a difference.
        """
        numbers = self.numbers(rows)
        weights = self.layer.weights(queries=numbers).to(self.heads.dtype)
        stays = None if self.stays is None else self.stays[:, numbers]
        if self.divisor is not None:
            divisor = self.divisor[:, numbers]
            weights = weights / divisor[:, None, :, None]
            stays = None if stays is None else stays / divisor[..., None]
        against = eps - target[:, numbers]
        out = torch.empty(len(weights), len(numbers), self.layer.num_keys).to(against)
        size = max(1, _WORKING_SET // (len(numbers) * against.shape[-1]))
        for item in range(len(weights)):
            for start in range(0, self.layer.num_keys, size):
                keys = range(self.layer.num_keys)[start : start + size]
                by_key = weights[item, :, :, start : keys.stop].permute(2, 1, 0)  # key, row, head
                sent = self.heads[item, :, start : keys.stop].transpose(0, 1)  # key, head, width
                apart = torch.baddbmm(against[item, None], by_key, sent)
                if stays is not None:
                    own = [row for row, number in enumerate(numbers) if number in keys]
                    apart[[numbers[row] - start for row in own], own] += stays[item, own]
                out[item, :, start : keys.stop] = torch.linalg.vector_norm(apart, ord=order, dim=-1).T
        return out

    def numbers(self, rows: slice | list[int]) -> list[int]:
        """Return row numbers for a slice or a list."""
        return list(range(self.layer.num_queries))[rows] if isinstance(rows, slice) else list(rows)
