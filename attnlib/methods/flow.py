"""Attention flow (Abnar & Zuidema 2020): maximum flow through the layered attention graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.bands import percent
from attnlib.errors import BudgetError
from attnlib.methods.card import Option
from attnlib.methods.engine import blocks_of, fused_rows, propagate
from attnlib.methods.options import RESIDUAL, START_LAYER
from attnlib.methods.papers import ABNAR
from attnlib.methods.registry import method
from attnlib.methods.request import Answer, Request
from attnlib.methods.transitions import inverse, mixed
from attnlib.methods.windows import refuse_windows
from attnlib.record import LayerAttention

__all__ = ["flow"]

EXACT_WORK = 20_000
CUT_WORK = 2 * 10**8
MOST_EDGES = 5 * 10**7
_SCALE = 2**29


@method(
    "flow",
    title="Attention flow",
    summary="How much could flow at most from the query to each input token if attention weights were pipes.",
    formula=r"s_j = \operatorname{maxflow}\big(q_L \to j_0\big),\quad "
    r"\text{capacities } \tilde A_l = \operatorname{rownorm}\big((1-w)\,\bar A_l + w I\big)",
    family="attention",
    paper="Abnar & Zuidema, Quantifying Attention Flow in Transformers, ACL 2020, arXiv:2005.00928",
    bibtex=ABNAR,
    reference="samiraabnar/attention_flow, attention_graph_util.py::compute_node_flow",
    options=(
        RESIDUAL,
        START_LAYER,
        Option(
            "solver",
            "auto",
            "exact: networkx, floating capacities. cut: scipy's integer flow finds a cut, whose capacity is "
            "then summed in floating point (never below the flow, above it by at most 2^-29 per edge of the "
            "cut). bound: an upper bound in one pass; the rollout is a lower one. auto: for each item the "
            "first that is affordable.",
            "choice",
            ("auto", "exact", "cut", "bound"),
        ),
    ),
    cost="one maximum flow per query and token, each on L N^2 edges: small inputs only; the bound is one "
    "pass over the attention, memory linear in the number of tokens",
    deviations=(
        "Values are not divided by their row sum; the published code divides (the paper does not say so).",
        "A query that is a mean of several tokens starts from a source that feeds each of them its share.",
        "On large inputs the scores are an upper bound: what reaches token j is at most "
        "sum_i min(what reaches i, capacity i to j). The rollout is a flow too, hence a lower bound; the map "
        "says how far apart they are.",
    ),
    variants={"attention_flow": "samiraabnar/attention_flow: each row is divided by its sum."},
)
def flow(
    request: Request, *, residual_weight: float, start_layer: int, solver: str, variant: str | None
) -> Answer:
    """Find the maximum flow from the query to every token."""
    request.refuse_class_attention()
    layers = request.stack(start_layer=start_layer)
    refuse_windows(layers, "flow")
    if request.reads_pool and request.pool is not None:
        start = fused_rows(request.pool, None).mean(dim=1, keepdim=True)
        words, every = request.pool_words, False
    else:
        starts = request.starts(layers[-1])
        start, words, every = starts.weights, starts.words, starts.every
    real = _real_tokens(layers[0], request.seen)
    depth, flows = len(layers), start.shape[1]
    solvers = [_affordable(depth, len(own), flows) if solver == "auto" else solver for own in real]
    _check_size(depth, real, solvers)
    scores = torch.zeros_like(start)
    notes: tuple[str, ...] = ()
    if "bound" in solvers:
        scores = _upper_bound(layers, start, residual_weight)
        bounded = [item for item, chosen in enumerate(solvers) if chosen == "bound"]
        notes = (_how_far(layers, start, residual_weight, scores, bounded),)
    if set(solvers) != {"bound"}:
        capacities = _capacities(layers, residual_weight)
        for item, chosen in enumerate(solvers):
            if chosen != "bound":
                graph = [one[item][real[item][:, None], real[item]].numpy() for one in capacities]
                scores[item] = _solve(graph, start[item], real[item], _SOLVERS[chosen])
    if variant:
        scores = scores * inverse(scores.sum(dim=-1, keepdim=True))[0]
    said = solvers[0] if len(set(solvers)) == 1 else solvers
    notes += request.left_out
    return Answer(scores if every else scores.squeeze(1), query=words, notes=notes, options={"solver": said})


def _real_tokens(layer: LayerAttention, seen: Tensor | None) -> list[Tensor]:
    """Return the places of each item's real tokens: padding takes no part in a flow."""
    if seen is None or seen.shape[-1] != layer.num_queries:
        return [torch.arange(layer.num_queries)] * layer.batch_size
    return [torch.nonzero(one).flatten().cpu() for one in seen]


def _affordable(depth: int, num_tokens: int, flows: int) -> str:
    """Choose the solver for one item, by its own size."""
    work = depth * num_tokens**2 * flows * num_tokens  # edges, each for one flow per start and token
    return "exact" if work <= EXACT_WORK else "cut" if work <= CUT_WORK else "bound"


def _check_size(depth: int, real: Sequence[Tensor], solvers: Sequence[str]) -> None:
    edges = max(
        (depth * len(own) ** 2 for own, one in zip(real, solvers, strict=True) if one != "bound"), default=0
    )
    if edges > MOST_EDGES:
        raise BudgetError(f"flow: the graph of one flow has {edges:,} edges; use solver='bound'")


def _how_far(
    layers: Sequence[LayerAttention],
    start: Float[Tensor, "batch start query"],
    residual_weight: float,
    above: Float[Tensor, "batch start key"],
    items: list[int],
) -> str:
    """Say how far the upper bound is from the rollout, which is a lower one."""
    below = propagate(layers, start, lambda layer, rows: mixed(fused_rows(layer, rows), residual_weight))
    gap = (above - below.scores).clamp(min=0).sum(-1) / above.sum(-1).clamp(min=1e-300)
    return (
        "an upper bound of the flow, exact flow being too costly here; the rollout, a lower bound, "
        f"explains {percent(1 - gap[items].max())} of it or more"
    )


def _capacities(
    layers: Sequence[LayerAttention], residual_weight: float
) -> list[Float[Tensor, "batch query key"]]:
    """Return the capacities between the tokens of each layer and those below."""
    found = []
    for layer in layers:
        block = mixed(fused_rows(layer, slice(None)).double(), residual_weight)
        square = block.weights if block.stay is None else block.weights + torch.diag_embed(block.stay)
        found.append(square.cpu())
    return found


def _solve(
    capacities: list[np.ndarray],
    start: Float[Tensor, "start query"],
    real: Tensor,
    solve: Callable[[list[np.ndarray], np.ndarray], np.ndarray],
) -> Float[Tensor, "start key"]:
    """Run a solver for every start vector of one item; tokens that are padding get 0."""
    found = torch.zeros(start.shape, dtype=torch.float64)
    for number, row in enumerate(start.double().cpu()):
        found[number, real] = torch.as_tensor(solve(capacities, row[real].numpy()))
    return found.to(start)


def _arcs(capacities: list[np.ndarray], source: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return tails, heads and capacities: node 0 is the source, then the tokens from the top layer down."""
    size = len(source)
    tails, heads, values = [np.zeros(size, dtype=np.int64)], [1 + np.arange(size)], [source]
    for depth, matrix in enumerate(reversed(capacities)):
        rows, columns = np.indices(matrix.shape)
        tails.append(1 + depth * size + rows.ravel())
        heads.append(1 + (depth + 1) * size + columns.ravel())
        values.append(matrix.ravel())
    tail, head, value = map(np.concatenate, (tails, heads, values))
    kept = value > 0
    return tail[kept], head[kept], value[kept], 1 + (len(capacities) + 1) * size


def _networkx_flow(capacities: list[np.ndarray], source: np.ndarray) -> np.ndarray:
    """Solve with floating capacities."""
    import networkx  # here and below: graph libraries take as long to load as the rest of the room

    tails, heads, values, count = _arcs(capacities, source)
    graph = networkx.DiGraph()
    graph.add_nodes_from(range(count))
    graph.add_weighted_edges_from(
        zip(tails.tolist(), heads.tolist(), values.tolist(), strict=True), weight="capacity"
    )
    size = len(source)
    return np.array(
        [networkx.maximum_flow_value(graph, 0, count - size + token) for token in range(size)],
        dtype=np.float64,
    )


def _cut_flow(capacities: list[np.ndarray], source: np.ndarray) -> np.ndarray:
    """Solve with integer capacities, then sum the cut that was found in floating point."""
    from scipy.sparse import coo_array, csr_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    tails, heads, values, count = _arcs(capacities, source)
    whole = np.floor(values * _SCALE).astype(np.int32)
    nodes = (tails.astype(np.int32), heads.astype(np.int32))  # SciPy before 1.14 solves no other index type
    graph = csr_array(coo_array((whole, nodes), shape=(count, count)))
    size = len(source)
    found = np.zeros(size)
    for token in range(size):
        sink = count - size + token
        result = maximum_flow(graph, 0, sink)
        left = csr_array(graph - result.flow)
        left.eliminate_zeros()
        reached = np.zeros(count, dtype=bool)
        reached[breadth_first_order(left, 0, return_predecessors=False)] = True
        found[token] = values[reached[tails] & ~reached[heads]].sum()
    return found


_SOLVERS = {"exact": _networkx_flow, "cut": _cut_flow}


def _upper_bound(
    layers: Sequence[LayerAttention], start: Float[Tensor, "batch start query"], residual_weight: float
) -> Float[Tensor, "batch start key"]:
    r"""Bound the flow in one pass: :math:`u_{l-1}(j) = \sum_i \min(u_l(i), \tilde A_l[i, j])`."""
    reach = start
    total = start.sum(dim=-1, keepdim=True)
    for layer in reversed(layers):
        arrived = torch.zeros_like(reach)
        for rows in blocks_of(layer):
            block = mixed(fused_rows(layer, rows), residual_weight)
            for number in range(reach.shape[1]):
                have = reach[:, number, rows]
                weights = block.weights.clone()
                columns = torch.arange(layer.num_queries)[rows]
                if block.stay is not None:
                    weights[:, torch.arange(len(columns)), columns] += block.stay
                arrived[:, number] += torch.minimum(weights, have[..., None]).sum(dim=1)
        reach = torch.minimum(arrived, total)
    return reach
