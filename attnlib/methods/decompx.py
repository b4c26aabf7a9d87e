"""DecompX (Modarressi 2023): vectors decomposed over the input tokens through every layer and the head."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.errors import BudgetError, CaptureError, InputError, NeedsError
from attnlib.methods.card import Option
from attnlib.methods.decomposition import block_of
from attnlib.methods.model_input import refuse_query
from attnlib.methods.registry import method
from attnlib.methods.request import Answer, Request
from attnlib.record import LayerAttention
from attnlib.record.internals import BlockInternals, LinearMap, NormMap, ReadoutHead

__all__ = ["decomposed_states", "decompx", "through_head"]

_LARGEST = 2**33
_WORKING_SET = 2**24
_EPS = 1e-12


@method(
    "decompx",
    title="DecompX",
    summary="Every hidden state is kept as a sum of one vector per input token, through attention, skip "
    "connections, norms, feed-forwards and the head; the parts of the target's logit add up to it.",
    formula=r"x_i^{(l)} = \sum_k x_{i\leftarrow k}^{(l)},\qquad s_k = \text{head}\big(x_{q\leftarrow k}^{(L)}"
    r"\big)_{\text{target}},\qquad \sum_k s_k = \text{logit}",
    family="decomposition",
    paper="Modarressi et al., DecompX: Explaining Transformers Decisions by Propagating Token Decomposition, "
    "ACL 2023, arXiv:2306.02873",
    bibtex="""@inproceedings{modarressi2023decompx,
  title = {{DecompX}: Explaining Transformers Decisions by Propagating Token Decomposition},
  author = {Modarressi, Ali and Fayyaz, Mohsen and Aghazadeh, Ehsan and Yaghoobzadeh, Yadollah and
            Pilehvar, Mohammad Taher},
  booktitle = {Proceedings of ACL}, pages = {2649--2664}, year = {2023}
}""",
    reference="mohsenfayyaz/DecompX, src/modeling_bert.py (biases by absolute dot product, activations by "
    "the slope through zero)",
    options=(
        Option(
            "of",
            "output",
            "What is decomposed: one logit of the output (signed), or the state of the query's token after "
            "the last layer used (norms of its vectors).",
            "choice",
            ("output", "token"),
        ),
        Option(
            "label",
            None,
            "Index of the logit; None = the target of the capture, or the largest of each item.",
            "int",
            optional=True,
        ),
    ),
    needs=("values", "internals"),
    signed=True,
    cost="tokens^2 x width numbers, and as many operations a layer as 10 forward passes of every token pair: "
    "some hundred tokens",
    deviations=(
        "Written for BERT. In pre-norm models (ViT) the same rules are applied in the order of the block: "
        "the norm in front of the attention and of the feed-forward passes vectors on with the deviation of "
        "the real state, and its shift is shared out like every bias.",
        "A block whose feed-forward is not two linear maps with an activation, or a head that does not "
        "read one token, is refused.",
        "That the parts add up to the real logit is checked in every call.",
    ),
)
def decompx(request: Request, *, of: str, label: int | None) -> Answer:
    """Propagate decomposed vectors and read off the target's parts, or the norms of a token's parts."""
    layers = request.stack()
    if of == "token":
        if label is not None:
            raise InputError("decompx: label belongs to of='output'")
        starts = request.starts(layers[-1])
        rows = list(range(layers[-1].num_queries)) if starts.every else starts.rows
        norms = torch.stack([one.norm(dim=-1) for one in decomposed_states(layers, rows)])
        if starts.every:
            return Answer(norms, query=starts.words)
        weights = starts.weights[..., rows].to(norms.dtype)
        return Answer((weights @ norms).squeeze(1), query=starts.words)
    refuse_query(request, "of='token' decomposes the state of a token")
    head, logits = _head(request, layers)
    parts = torch.stack([through_head(one[0], head) for one in decomposed_states(layers, [head.index])])
    _check(parts.sum(dim=1), logits)
    if label is not None and not -logits.shape[1] <= label < logits.shape[1]:
        raise InputError(f"decompx: label {label} is outside the {logits.shape[1]} logits")
    wanted = _labels(request, logits, label)
    scores = parts[torch.arange(len(parts)), :, wanted]
    return Answer(scores, query="the output", options={"label": wanted.tolist()})


def decomposed_states(
    layers: tuple[LayerAttention, ...], rows: list[int]
) -> list[Float[Tensor, "row key width"]]:
    """Return, for each item, the vectors of which the states of some rows consist after the last layer.

    Parameters
    ----------
    layers : self-attention calls with internals, first layer first.
    rows : query rows of the last layer.

    Raises
    ------
    NeedsError
        If a block lacks a part.
    BudgetError
        If the vectors would not fit in memory.
    """
    blocks = [_complete(layer) for layer in layers]
    first = blocks[0].total
    num_tokens, width, size = layers[0].num_keys, first.shape[-1], first.element_size()
    needed = num_tokens * (num_tokens if blocks[1:] else len(rows)) * width * size * 3
    if needed > _LARGEST:
        raise BudgetError(
            f"decompx keeps a vector for every pair of {num_tokens} tokens, about {needed / 2**30:.0f} GB: "
            "use fewer tokens (a smaller picture), or globenc or alti"
        )
    found = []
    for item in range(layers[0].batch_size):
        state: Tensor | None = None
        for position, (layer, block) in enumerate(zip(layers, blocks, strict=True)):
            kept = rows if position == len(layers) - 1 else list(range(num_tokens))
            state = _through_block(layer, block, item, state, kept)
        assert state is not None
        found.append(state)
    return found


def _complete(layer: LayerAttention) -> BlockInternals:
    block = block_of(layer, "decompx")
    if block.feed_forward is None or block.second_total is None or block.value is None:
        raise NeedsError(
            f"decompx: {layer.name} lacks a part: {block.problem or 'it has no feed-forward'}; globenc and "
            "alti do without"
        )
    return block


def _through_block(
    layer: LayerAttention, block: BlockInternals, item: int, state: Tensor | None, rows: list[int]
) -> Float[Tensor, "row key width"]:
    """Carry the vectors of one item through one block."""
    values = _carried_values(layer, block, item, state)
    num_tokens, width = layer.num_keys, block.total.shape[-1]
    hidden = 1 if block.feed_forward is None else block.feed_forward.first.weight.shape[0]
    size = max(1, _WORKING_SET // (num_tokens * max(hidden, width)))
    out = block.total.new_empty(len(rows), num_tokens, width)
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        vectors = _attended(layer, block, item, state, values, part)
        out[start : start + size] = _after_attention(block, item, part, vectors)
    return out


def _carried_values(layer: LayerAttention, block: BlockInternals, item: int, state: Tensor | None) -> Tensor:
    """Return the value vectors of each head: per token, or per token and source once they are decomposed."""
    if state is None:
        return layer.values()[item].to(block.total.dtype)  # head, key, dim
    read = state
    if block.value_norm is not None:
        read = _normed(state, block.value_norm, block.residual[item])
    assert block.value is not None
    made = read @ block.value.weight.T
    return made.unflatten(-1, (layer.num_heads, -1)).permute(2, 0, 1, 3)  # head, key, source, dim


def _attended(
    layer: LayerAttention,
    block: BlockInternals,
    item: int,
    state: Tensor | None,
    values: Tensor,
    rows: list[int],
) -> Float[Tensor, "row key width"]:
    """Return the vectors after attention, skip connection and the bias of the output map."""
    weights = layer.weights(queries=rows)[item].to(values.dtype)
    split = block.output.weight.unflatten(1, (layer.num_heads, -1))
    bias = values.new_zeros(len(rows), split.shape[0])
    if block.output.bias is not None:
        bias = bias + block.output.bias
    if state is None:
        sent = torch.einsum("hnv,dhv->nhd", values, split)
        vectors = (weights.permute(2, 1, 0) @ sent).transpose(0, 1)
        vectors[range(len(rows)), rows] += block.residual[item, rows]
    else:
        mixed = (weights @ values.flatten(2)).unflatten(2, values.shape[2:])  # head, row, source, dim
        vectors = mixed.permute(1, 2, 0, 3).flatten(2) @ block.output.weight.T + state[rows]
        if block.value is not None and block.value.bias is not None:
            per_head = torch.einsum("hv,dhv->hd", block.value.bias.unflatten(0, (layer.num_heads, -1)), split)
            bias = bias + weights.sum(dim=-1).T @ per_head
    return _shared(vectors, bias)


def _after_attention(block: BlockInternals, item: int, rows: list[int], vectors: Tensor) -> Tensor:
    """Carry vectors through the norm, the feed-forward, its skip connection and the second norm."""
    assert block.feed_forward is not None
    assert block.second_total is not None
    if block.norm is not None:
        vectors = _normed(vectors, block.norm, block.total[item, rows])
    forward = block.feed_forward
    real = block.total[item, rows] if block.norm is None else block.norm(block.total[item, rows])
    read = vectors if forward.norm is None else _normed(vectors, forward.norm, real)
    inside = forward.first(real if forward.norm is None else forward.norm(real))
    slope = forward.activation(inside) / (inside + _EPS)
    hidden = _mapped(read, forward.first) * slope[:, None]
    vectors = vectors + _mapped(hidden, forward.second)
    if block.second_norm is not None:
        vectors = _normed(vectors, block.second_norm, block.second_total[item, rows])
    return vectors


def through_head(vectors: Float[Tensor, "key width"], head: ReadoutHead) -> Float[Tensor, "key label"]:
    """Carry the vectors of one token through the model's head.

    Parameters
    ----------
    vectors : the parts of the token's state.
    head : what the model does with the state.
    """
    real = vectors.sum(dim=0)
    parts = vectors[None]
    for step in head.steps:
        if isinstance(step, LinearMap):
            parts, real = _mapped(parts, step), step(real)
        elif isinstance(step, NormMap):
            parts, real = _normed(parts, step, real[None]), step(real)
        else:
            after = step(real)
            parts, real = parts * (after / (real + _EPS)), after
    return parts[0]


def _mapped(vectors: Tensor, linear: LinearMap) -> Tensor:
    made = vectors @ linear.weight.T
    return made if linear.bias is None else _shared(made, linear.bias.expand(len(made), -1))


def _normed(vectors: Tensor, norm: NormMap, real: Tensor) -> Tensor:
    """Apply the linear part of a norm with the deviation of the real state; share out its shift."""
    made = norm.linear(vectors) / norm.deviation(real)[:, None, None]
    return made if norm.shift is None else _shared(made, norm.shift.expand(len(made), -1))


def _shared(vectors: Float[Tensor, "row key width"], bias: Float[Tensor, "row width"]) -> Tensor:
    """Share out a bias among the vectors by the absolute value of their dot products with it."""
    weights = torch.einsum("rkd,rd->rk", vectors, bias).abs()
    weights = weights / (weights.sum(dim=-1, keepdim=True) + _EPS)
    return vectors + weights[..., None] * bias[:, None]


def _head(request: Request, layers: tuple[LayerAttention, ...]) -> tuple[ReadoutHead, Tensor]:
    everything = request.record.select(kind="self").layers
    block = [_complete(layer) for layer in layers][-1]
    if len(layers) != len(everything):
        raise InputError("decompx: of='output' goes through all layers; with layers=... use of='token'")
    output = request.record.output
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if block.head is None or not isinstance(logits, Tensor) or logits.dim() != 2:
        raise NeedsError(
            f"decompx: no head from one token to logits was found ({block.problem or 'no logits'}); use "
            "of='token' for the parts of a token's last state"
        )
    return block.head, logits.detach()


def _labels(request: Request, logits: Tensor, label: int | None) -> Tensor:
    """Return the index of the explained logit of each item."""
    target = getattr(request.record.on_rerun, "target", None) if label is None else label
    try:
        given = torch.as_tensor(target) if target is not None else None
    except (TypeError, ValueError, RuntimeError):
        given = None
    if given is None or given.is_floating_point():
        return logits.argmax(dim=1)
    return (given % logits.shape[1]).expand(len(logits))


def _check(total: Tensor, logits: Tensor) -> None:
    allowed = {torch.float64: 1e-6, torch.float32: 1e-2}.get(logits.dtype, 1e-1)
    if total.shape != logits.shape:
        raise CaptureError("decompx: the head that was found does not lead to the model's logits")
    worst = float((total - logits).abs().max() / logits.abs().max().clamp(min=1e-30))
    if not worst <= allowed:
        raise CaptureError(
            f"decompx: the parts add up to the logits only to {worst:.1e} of the largest: the head was not "
            "followed right"
        )
