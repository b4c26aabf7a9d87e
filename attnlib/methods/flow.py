"""Attention flow (Abnar & Zuidema 2020): maximum flow through the layered attention graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import networkx
import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from torch import Tensor

from attnlib.bands import percent
from attnlib.errors import BudgetError
from attnlib.methods.card import Option
from attnlib.methods.engine import blocks_of, fused_rows, propagate
from attnlib.methods.papers import ABNAR
from attnlib.methods.registry import method
from attnlib.methods.request import Answer, Request
from attnlib.methods.transitions import RESIDUAL, START_LAYER, inverse, mixed
from attnlib.methods.windows import refuse_windows
from attnlib.record import LayerAttention

__all__ = ["flow"]

EXACT_EDGES = 20_000
CUT_WORK = 2 * 10**8
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
            "exact: networkx, floating capacities. cut: scipy's integer flow finds a cut, whose capacity "
            "is then "
            "summed in floating point (never below the flow, above it by at most 2^-29 per edge of the cut). "
            "bound: an upper bound in one pass; the rollout is a lower one. auto: the first that is "
            "affordable.",
            "choice",
            ("auto", "exact", "cut", "bound"),
        ),
    ),
    cost="one maximum flow per query and token, each on L N^2 edges: small inputs only; the bound is one "
    "pass over "
    "the attention, memory linear in the number of tokens",
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
    layers = request.stack(start_layer=start_layer)
    refuse_windows(layers, "flow")
    if request.reads_pool and request.pool is not None:
        start = fused_rows(request.pool, None).mean(dim=1, keepdim=True)
        words, every = "the pooler's own row", False
    else:
        starts = request.starts(layers[-1])
        start, words, every = starts.weights, starts.words, starts.every
    chosen = _affordable(layers, start) if solver == "auto" else solver
    notes: tuple[str, ...] = ()
    if chosen == "bound":
        scores = _upper_bound(layers, start, residual_weight)
        below = propagate(layers, start, lambda layer, rows: mixed(fused_rows(layer, rows), residual_weight))
        gap = (scores - below.scores).clamp(min=0).sum(-1) / scores.sum(-1).clamp(min=1e-300)
        notes = (
            "an upper bound of the flow, exact flow being too costly here; the rollout, a lower bound, "
            f"explains {percent(1 - gap.max())} of it or more",
        )
    else:
        _check_size(layers, start)
        solve = _networkx_flow if chosen == "exact" else _cut_flow
        scores = _solve(layers, start, residual_weight, solve)
    if variant:
        scores = scores * inverse(scores.sum(dim=-1, keepdim=True))[0]
    return Answer(
        scores if every else scores.squeeze(1), query=words, notes=notes, options={"solver": chosen}
    )


def _edges(layers: Sequence[LayerAttention]) -> int:
    return sum(layer.num_queries * layer.num_keys for layer in layers)


def _problems(layers: Sequence[LayerAttention], start: Tensor) -> int:
    return start.shape[0] * start.shape[1] * layers[0].num_keys


def _affordable(layers: Sequence[LayerAttention], start: Tensor) -> str:
    edges = _edges(layers)
    if edges * _problems(layers, start) <= EXACT_EDGES:
        return "exact"
    return "cut" if edges * _problems(layers, start) <= CUT_WORK else "bound"


def _check_size(layers: Sequence[LayerAttention], start: Tensor) -> None:
    if _edges(layers) > 5 * 10**7:
        raise BudgetError(
            f"flow: the graph has {_edges(layers):,} edges for each of {_problems(layers, start):,} flows; "
            "use solver='bound'"
        )


def _solve(
    layers: Sequence[LayerAttention],
    start: Float[Tensor, "batch start query"],
    residual_weight: float,
    solve: Callable[[list[np.ndarray], np.ndarray], np.ndarray],
) -> Float[Tensor, "batch start key"]:
    """Run a solver for every item and start vector."""
    capacities = []
    for layer in layers:
        block = mixed(fused_rows(layer, None).double(), residual_weight)
        square = block.weights + torch.diag_embed(block.stay if block.stay is not None else torch.zeros(1))
        capacities.append(square.cpu().numpy())
    found = [
        [solve([one[item] for one in capacities], row) for row in start[item].double().cpu().numpy()]
        for item in range(start.shape[0])
    ]
    return torch.as_tensor(np.array(found)).to(start)


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
