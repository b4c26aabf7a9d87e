"""DecompX (Modarressi 2023): vectors decomposed over the input tokens through every layer and the head."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.errors import CaptureError, InputError, NeedsError
from attnlib.methods.card import Option
from attnlib.methods.decomposition import block_of
from attnlib.methods.decompx_blocks import check_size, decomposed_states, what_lacks
from attnlib.methods.model_input import handle_of, refuse_query
from attnlib.methods.parts_rules import PartsRules, at_value
from attnlib.methods.registry import method
from attnlib.methods.request import Answer, Request
from attnlib.methods.windows import refuse_windows
from attnlib.record import LayerAttention
from attnlib.record.internals import Rerun

__all__ = ["decompx"]


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
  booktitle = {Proceedings of the 61st Annual Meeting of the Association for Computational Linguistics},
  pages = {2649--2664},
  year = {2023}
}""",
    reference="mohsenfayyaz/DecompX, src/modeling_bert.py (biases by absolute dot product, activations by "
    "the slope through zero)",
    options=(
        Option(
            "of",
            "output",
            "What is decomposed: one logit of the output (signed; takes no query), or the state of the "
            "query's token after the last layer used (norms of its vectors, for any query= and layers=).",
            "choice",
            ("output", "token"),
        ),
        Option(
            "label",
            None,
            "Index of the logit; None = the target of the capture (a label, or any function of the output), "
            "or the largest logit of each item.",
            "int",
            optional=True,
        ),
    ),
    needs=("values", "internals", "model"),
    takes_query=False,
    query_with=("of", "token"),
    signed=True,
    cost="tokens^2 x width numbers (with gates or unusual heads tokens^2 x the widest layer), and for each "
    "source token about the work of a forward pass: some hundred tokens",
    deviations=(
        "Written for BERT. In pre-norm models (ViT) the same rules are applied in the order of the block: "
        "the norm in front of the attention and of the feed-forward passes vectors on with the deviation of "
        "the real state, and its shift is shared out like every bias.",
        "From the last block to the target, and through blocks that are not two linear maps with an "
        "activation, each torch function is followed by its kind: what is affine acts on every vector, "
        "activations by their slope through zero, norms with the deviation and attention with the weights "
        "of the real state. So any head will do: means, two tokens, convolutions, a projection. Biases of "
        "an attention are then shared out where they are added, not after the skip connection.",
        "The paper has no gates: a product of two decomposed states is shared half and half.",
        "Scores are parts of the target's score. That they add up to it is checked in every call, and a "
        "function that counted as a constant though it mattered is named.",
    ),
)
def decompx(request: Request, *, of: str, label: int | None) -> Answer:
    """Propagate decomposed vectors and read off the target's parts, or the norms of a token's parts."""
    layers = request.stack()
    refuse_windows(layers, "decompx")
    if of == "token":
        if label is not None:
            raise InputError("decompx: label belongs to of='output'")
        starts = request.starts(layers[-1])
        rows = list(range(layers[-1].num_queries)) if starts.every else starts.rows
        problem = what_lacks(layers)
        if problem:
            states = states_by_rules(request, layers, rows)
        else:
            states = decomposed_states(layers, rows, max_memory=request.max_memory)
        norms = torch.stack([one.norm(dim=-1) for one in states])
        notes = (_by_function(problem),) if problem else ()
        if starts.every:
            return Answer(norms, query=starts.words, notes=notes)
        weights = starts.weights[..., rows].to(norms.dtype)
        return Answer((weights @ norms).squeeze(1), query=starts.words, notes=notes)
    refuse_query(request, "of='token' decomposes the state of a token")
    target, said = _target(request, label)
    scores, notes = score_parts(request, layers, target)
    return Answer(scores, query="the output", notes=notes, options=said)


def score_parts(
    request: Request, layers: tuple[LayerAttention, ...], target: Any
) -> tuple[Float[Tensor, "batch key"], tuple[str, ...]]:
    """Return the parts of the target's score, and what a reader must know of them.

    Parameters
    ----------
    request : what was asked.
    layers : all self-attention calls of the stream.
    target : as for ``capture``; None = the capture's own.

    Raises
    ------
    CaptureError
        If the parts do not add up to the score.
    """
    if len(layers) != len(request.record.select(kind="self").layers):
        raise InputError("decompx: of='output' goes through all layers; with layers=... use of='token'")
    handle = handle_of(request, target)
    problem = what_lacks(layers)
    notes = (_by_function(problem),) if problem else ()
    if any(one.kind == "cross" for one in request.record.layers):
        notes += ("what comes from the other stream is shared out among the tokens like a bias",)
    if problem:
        rules = PartsRules(*_beginning(request, layers))
    else:
        state = _last_state(layers)
        rows = _rows_read(handle, request.stream, state, target)
        parts = state.new_zeros(layers[0].num_keys, *state.shape)
        states = decomposed_states(layers, rows, max_memory=request.max_memory)
        for item, vectors in enumerate(states):
            parts[:, item, rows] = vectors.transpose(0, 1)
        rules = PartsRules(state, parts)
    score = handle.score(request.stream, target=target, rule=rules, activation=rules.activation)
    found = rules.of(score)
    gone = f" (counted as constants: {', '.join(rules.lost)})" if rules.lost else ""
    if found is None:
        raise CaptureError(f"decompx: the target was not reached from the last block by rules{gone}")
    _check(found.sum(dim=0), score, float(found.abs().max()), gone)
    if len(score) != layers[0].batch_size:
        raise InputError(
            f"decompx: the target is {len(score)} scores, the stream {request.stream} holds "
            f"{layers[0].batch_size} items: give target= a function that returns one score per item"
        )
    return found.T, notes


def states_by_rules(
    request: Request, layers: tuple[LayerAttention, ...], rows: list[int]
) -> list[Float[Tensor, "row key width"]]:
    """Return what ``decomposed_states`` does, following the blocks function by function.

    Raises
    ------
    NeedsError
        If the layers are not neighbours, or the state after the last one is not known.
    """
    block = block_of(layers[-1], "decompx")
    indices = [layer.index for layer in layers]
    if indices != list(range(indices[0], indices[0] + len(indices))) or block.second_total is None:
        raise NeedsError(
            f"decompx: {what_lacks(layers)}; without that, of='token' needs neighbouring layers with a "
            "feed-forward; globenc and alti do without"
        )
    rules = PartsRules(*_beginning(request, layers), until=_last_state(layers))
    handle = handle_of(request, _no_target)
    handle.score(request.stream, target=_no_target, rule=rules, activation=rules.activation)
    if rules.reached is None:
        raise CaptureError(f"decompx: the state after {layers[-1].name} was not reached by rules")
    states = rules.reached[:, :, rows]
    _check(states.sum(dim=0), _last_state(layers)[:, rows], 0.0, "")
    return list(states.permute(1, 2, 0, 3))


def _last_state(layers: tuple[LayerAttention, ...]) -> Tensor:
    """Return the state after the last layer, its feed-forward and norms included."""
    block = block_of(layers[-1], "decompx")
    if block.second_total is None:
        return block.out()
    return block.second_total if block.second_norm is None else block.second_norm(block.second_total)


def _no_target(_: Any) -> Tensor:
    return torch.zeros(1)


def _beginning(request: Request, layers: tuple[LayerAttention, ...]) -> tuple[Tensor, Tensor]:
    """Return the state that the first layer reads, and its parts: each token is its own."""
    block = block_of(layers[0], "decompx")
    state = block.residual
    check_size(layers[0], block, items=layers[0].batch_size, max_memory=request.max_memory)
    parts = state.new_zeros(state.shape[1], *state.shape)
    tokens = torch.arange(state.shape[1])
    parts[tokens, :, tokens] = state.transpose(0, 1)
    return state, parts


def _by_function(problem: str) -> str:
    return f"the blocks were followed function by function, not as a whole ({problem})"


def _rows_read(handle: Rerun, stream: str, state: Tensor, target: Any) -> list[int]:
    """Return the tokens of the last state that the score depends on, by its gradient."""
    leaves: list[Tensor] = []

    def rule(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = func(*args, **kwargs)
        if leaves or not isinstance(out, Tensor) or not at_value(out.detach(), state):
            return out
        leaves.append(out.detach().requires_grad_())
        return leaves[0]

    score = handle.score(stream, target=target, rule=rule)
    if not leaves:
        raise CaptureError("decompx: the state after the last block was not computed again as captured")
    with torch.enable_grad():
        slope = handle.gradient(score, leaves[0])
    return torch.nonzero(slope.abs().amax(dim=(0, 2))).flatten().tolist()


def _target(request: Request, label: int | None) -> tuple[Any, dict[str, Any]]:
    """Return the target to explain (None = that of the capture), and how to call it."""
    output: Any = request.record.output
    logits: Any = output if isinstance(output, Tensor) else None
    for word in ("logits", "logits_per_image"):
        logits = getattr(output, word, None) if logits is None else logits
    known = isinstance(logits, Tensor) and logits.dim() in (2, 3)
    given: Any = getattr(request.record.on_rerun, "target", None)
    if label is None and callable(given):
        return functools.partial(_one_per_item, given), {}
    if label is None and given is not None:
        return None, {"label": given if isinstance(given, int | str) else [_plain(one) for one in given]}
    if not known:
        raise NeedsError("decompx explains one number of the output: name it with capture(..., target=...)")
    assert isinstance(logits, Tensor)
    logits = logits if logits.dim() == 2 else logits[:, -1]
    if label is not None and not -logits.shape[1] <= label < logits.shape[1]:
        raise InputError(f"decompx: label {label} is outside the {logits.shape[1]} logits")
    wanted = logits.argmax(dim=1).tolist() if label is None else [label % logits.shape[1]] * len(logits)
    return wanted, {"label": wanted}


def _one_per_item(target: Any, output: Any) -> Tensor:
    return target(output).reshape(-1)


def _plain(one: Any) -> int | str:
    return one if isinstance(one, str) else int(one)


def _check(total: Tensor, real: Tensor, largest: float, gone: str) -> None:
    if not bool(torch.isfinite(total).all()):
        narrow = real.dtype in (torch.float16, torch.bfloat16)
        told = f" in {str(real.dtype).removeprefix('torch.')}: load the model with dtype='float32'"
        raise CaptureError(
            "decompx: parts of the score are not finite (infinite or NaN)"
            + (told if narrow else "; look at what the model computed for this input")
        )
    allowed = {torch.float64: 1e-6, torch.float32: 3e-3}.get(real.dtype, 1e-1)
    scale = max(float(real.abs().max()), largest, 1e-30)
    worst = float((total - real).abs().max()) / scale
    if not worst <= allowed:
        raise CaptureError(
            f"decompx: the parts add up to what the model computed only to {worst:.1e} of the largest: a "
            f"function on the way has no rule{gone}"
        )
