"""Generic attention relevance (Chefer, Gur & Wolf, ICCV 2021): self-attention and two streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attnlib.errors import InputError
from attnlib.layout import TokenLayout
from attnlib.methods.card import Option
from attnlib.methods.engine import Block, LinearTransition, active_rows, blocks_of
from attnlib.methods.options import START_LAYER
from attnlib.methods.propagation import propagated
from attnlib.methods.queries import find_starts
from attnlib.methods.registry import method
from attnlib.methods.request import Answer, Request, one_row
from attnlib.methods.stream_rows import Carried, rows_between
from attnlib.methods.streaming import carry
from attnlib.methods.streams import Pair, relate, stream_sizes
from attnlib.methods.transitions import gradient_rows, number_bytes
from attnlib.record import LayerAttention

__all__ = ["generic_relevance"]

PAIR_MATRICES = 8


@method(
    "generic_relevance",
    title="Generic attention relevance",
    summary="Adds up, over all layers, the attention that raised the target's score.",
    formula=r"\bar A_l = \tfrac1H\sum_h (G_l^{(h)} \odot A_l^{(h)})^{+},\quad "
    r"R \leftarrow R + \bar A_l R,\quad "
    r"R_{sq} \leftarrow R_{sq} + \bar R_{ss}^{\top} \bar A_{sq} \bar R_{qq},\quad "
    r"R_{ss} \leftarrow R_{ss} + \bar A_{sq} R_{qs},\quad s = R[q,:]",
    family="gradient",
    paper="Chefer, Gur & Wolf, Generic Attention-model Explainability for Interpreting Bi-Modal and "
    "Encoder-Decoder Transformers, ICCV 2021, arXiv:2103.15679",
    bibtex="""@inproceedings{chefer2021generic,
  title = {Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers},
  author = {Chefer, Hila and Gur, Shir and Wolf, Lior},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision},
  pages = {397--406},
  year = {2021}
}""",
    reference="hila-chefer/Transformer-MM-Explainability: ViT and CLIP notebooks, LXMERT and DETR generators",
    options=(
        START_LAYER,
        Option("normalise", True, "Two streams: apply the paper's equations 8 and 9.", "bool"),
        Option(
            "query_stream",
            None,
            "Two streams: whose token is the query; None = the one that reads the other (the decoder, the "
            "text).",
        ),
        Option(
            "key_stream",
            None,
            "Two streams: whose tokens get the scores; None = the other stream than the query's.",
        ),
    ),
    needs=("gradients",),
    cost="one backward pass, then one pass over attention and gradients, memory linear in the number of "
    "tokens, also through an encoder and its decoder (there each cross-attention call is one more pass over "
    "the decoder's layers). Where two streams read each other, or for query='all' between two, each call "
    "multiplies states by states, and whole matrices are kept: about 8 x (n^2 + m^2) numbers an item, 1.6 GB "
    "for 5,000 tokens each, refused before the work if that is not free (or above max_memory)",
    deviations=(
        "A row that received nothing from others is 0/0 in the normalisation; it counts as 0 and the map "
        "says so. The published encoder-decoder code then loses the whole cross-attention call, the bi-modal "
        "code returns NaN.",
        "Heads are averaged within each item; the published code averages over batch and heads together (its "
        "CLIP notebook does not).",
        "R_tt[0,0] keeps its value; the published bi-modal code sets it to 0 at the end.",
        "Attention itself is weighted, as in the paper; generate_ours of the published LXMERT and DETR code "
        "takes its layer-wise relevance instead unless told use_lrp=False.",
    ),
    variants={
        "chefer-clip-notebook": "the CLIP notebook's default start_layer=-1: the last layer only.",
        "chefer-detr": "the encoder-decoder generator: if any row of a normalised factor is 0/0, the whole "
        "cross-attention call adds nothing.",
        "rule10-plain": "cross-attention is added without the self-attention factors "
        "(apply_self_in_rule_10=False).",
    },
)
def generic_relevance(
    request: Request,
    *,
    start_layer: int,
    normalise: bool,
    query_stream: str | None,
    key_stream: str | None,
    variant: str | None,
) -> Answer:
    """Accumulate relevance through one stream, or between two."""
    if len(request.record.streams) > 1 or any(one.kind == "cross" for one in request.record.layers):
        if start_layer:
            streams = request.record.streams
            held = f"the streams {' and '.join(streams)}" if len(streams) > 1 else "cross-attention"
            raise InputError(
                f"generic_relevance: start_layer={start_layer} says where a stack of self-attention begins, "
                f"and this record holds {held}: leave start_layer out, or choose layers with layers=[...]"
            )
        return _two_streams(
            request,
            query_stream=query_stream,
            key_stream=key_stream,
            normalise=normalise,
            own_factors=variant != "rule10-plain",
            drop_on_empty_row=variant == "chefer-detr",
        )
    if query_stream is not None or key_stream is not None:
        raise InputError(f"generic_relevance: this record holds one stream only, {request.stream!r}")
    if variant == "chefer-clip-notebook":
        start_layer = -1
    return propagated(
        request,
        LinearTransition(_transition, _streamed),
        start_layer=start_layer,
        pool_rows=lambda pool: gradient_rows(pool, None, positive=True),
        late_class=True,
    )


def _transition(layer: LayerAttention, rows: slice | list[int]) -> Block:
    weights = gradient_rows(layer, rows, positive=True)
    return Block(weights, weights.new_ones(weights.shape[:-1]))


def _streamed(layer: LayerAttention, vector: Tensor) -> tuple[Tensor, float] | None:
    moved = carry(layer, vector, positive_gradient=True)
    return None if moved is None else (moved, 1.0)


def _whole(layer: LayerAttention) -> Tensor:
    return torch.cat([gradient_rows(layer, rows, positive=True) for rows in blocks_of(layer)], dim=1)


def _two_streams(
    request: Request, *, query_stream: str | None, key_stream: str | None, **rules: Any
) -> Answer:
    pair = Pair.of(request.record.layers)
    reader = pair.reader(query_stream)
    keys = pair.other(reader) if key_stream is None else pair.reader(key_stream)
    record = request.record if request.layers is None else request.record.select(layers=request.layers)
    request.refuse_gaps(record.layers)
    sizes = stream_sizes(record.layers, pair)
    probe = record.layers[0].weights(**one_row(record.layers[0]))
    every = isinstance(request.query, str) and request.query == "all"
    dense = every or len(pair.readers) > 1
    if dense:
        _check_size(request, record.layers, sizes)
    starts = find_starts(
        request.query,
        _layout(request, reader, sizes[reader]),
        batch_size=record.layers[0].batch_size,
        num_queries=sizes[reader],
        dtype=probe.dtype,
        device=probe.device,
        seen=request.record.seen.get(reader),
    )
    if dense:
        relations = relate(record.layers, pair, _whole, **rules)
        matrix, notes = relations.matrices[reader, keys], relations.notes
        scores = matrix if every else starts.weights @ matrix
    else:
        ways = Carried(_carried, _received)
        scores, notes = rows_between(
            record.layers, pair, starts.weights, ways, reader=reader, keys=keys, sizes=sizes, **rules
        )
    identity = starts.weights if reader == keys else None
    if not every:
        scores, identity = scores.squeeze(1), None if identity is None else identity.squeeze(1)
    return Answer(
        scores,
        identity,
        f"{starts.words} of the {reader}",
        _layout(request, keys, sizes[keys]),
        request.record.seen.get(keys),
        (*notes, f"relevance of the {keys} tokens to the {reader}"),
        {"query_stream": reader, "key_stream": keys},
    )


def _carried(layer: LayerAttention, vector: Tensor) -> Tensor:
    """Return rows times a layer."""
    square = layer.num_queries == layer.num_keys
    moved = carry(layer, vector, positive_gradient=True) if square else None
    if moved is not None:
        return moved
    arrived = vector.new_zeros(*vector.shape[:-1], layer.num_keys)
    for rows in blocks_of(layer, active_rows(vector)):
        arrived += vector[..., rows] @ gradient_rows(layer, rows, positive=True)
    return arrived


def _received(layer: LayerAttention, columns: Tensor) -> Tensor:
    """Return a layer times columns."""
    parts = [gradient_rows(layer, rows, positive=True) @ columns for rows in blocks_of(layer)]
    return torch.cat(parts, dim=1)


def _check_size(request: Request, layers: Sequence[LayerAttention], sizes: dict[str, int]) -> None:
    squares = sum(size**2 for size in sizes.values())
    words = " and ".join(f"{size} ({stream})" for stream, size in sizes.items())
    request.demand(
        PAIR_MATRICES * layers[0].batch_size * squares * number_bytes(layers[0]),
        f"between two streams that read each other, or for query='all', whole matrices over {words} tokens "
        "are needed",
        "ask for one token, take one item at a time, a smaller input, or one stream with "
        "record.select(stream=...)",
    )


def _layout(request: Request, stream: str, num_tokens: int) -> TokenLayout:
    """Return the layout of a stream; numbered tokens if it is not known."""
    known = request.record.layouts.get(stream)
    if known is not None and known.num_tokens == num_tokens:
        return known
    return TokenLayout(None, tokens=[f"token {i}" for i in range(num_tokens)])
