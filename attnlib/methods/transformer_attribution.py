"""Transformer attribution (Chefer, Gur & Wolf, CVPR 2021): relevance propagation weighted by gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from attnlib.errors import CaptureError
from attnlib.methods.card import Option
from attnlib.methods.engine import Block
from attnlib.methods.looks import coarse
from attnlib.methods.model_input import handle_of
from attnlib.methods.options import START_LAYER
from attnlib.methods.propagation import propagated
from attnlib.methods.registry import method
from attnlib.methods.relprop_rules import RelevanceRules
from attnlib.methods.request import Answer, Request
from attnlib.methods.transitions import number_bytes
from attnlib.methods.windows import refuse_windows
from attnlib.record import LayerAttention

__all__ = ["attention_relevance", "transformer_attribution"]

BERT_CODE = "Transformer-Explainability-BERT"


@method(
    "transformer_attribution",
    title="Transformer attribution",
    summary="The relevance of each attention weight (layer-wise relevance propagation), times its gradient, "
    "the positive part averaged over heads and multiplied through the layers with the skip connections.",
    formula=r"\bar A_l = I + \frac1H\sum_h \big(\nabla A_l^{(h)} \odot R^{A_l^{(h)}}\big)^+,\qquad "
    r"s = (\bar A_L \cdots \bar A_1)[q,:]",
    family="relevance",
    paper="Chefer, Gur & Wolf, Transformer Interpretability Beyond Attention Visualization, CVPR 2021, "
    "arXiv:2012.09838",
    bibtex="""@inproceedings{chefer2021transformer,
  title = {Transformer Interpretability Beyond Attention Visualization},
  author = {Chefer, Hila and Gur, Shir and Wolf, Lior},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages = {782--791},
  year = {2021}
}""",
    reference="hila-chefer/Transformer-Explainability, baselines/ViT/ViT_LRP.py and BERT_explainability",
    options=(
        START_LAYER,
        Option(
            "gradients", True, "Weight the relevance by the gradient; without: the paper's ablation.", "bool"
        ),
    ),
    needs=("gradients", "model"),
    cost="one forward and two backward passes through the full attention matrices of all heads and layers: "
    "about 8 x layers x heads x tokens^2 numbers; for small inputs (some 1,000 tokens)",
    deviations=(
        "The paper has rules for ViT and BERT. By the same pattern, a product of two moving tensors (a gate) "
        "halves its relevance as a matrix product does, a convolution and a product with a constant are "
        "linear maps, means, sums, lengths and resizing share in proportion, root-mean-square norms pass it "
        "on like layer norms, and heads that share keys and values add up. Any other function is refused by "
        "name.",
        "The rescaling at sums runs over each item alone; the published code's runs over the whole batch, "
        "and returns the first item only.",
        "Rows are not normalised, as in the paper and the ViT code.",
        "Denominators are shifted by +1e-9 whatever their sign, as published, which makes the method "
        "ill-conditioned: in float32 a map may be off by 1e-3 of its maximum, and in 16 bits rounding may "
        "decide the order of patches (the map says so).",
    ),
    variants={
        BERT_CODE: "rows are normalised, and the row's own token gets the smallest value of the row, which "
        "is 0 where an item is padded (the published BERT code also starts at layer 11 of 12 unless told "
        "otherwise)"
    },
)
def transformer_attribution(
    request: Request, *, start_layer: int, gradients: bool, variant: str | None
) -> Answer:
    """Multiply gradient-weighted relevance of the attention through the layers."""
    request.refuse_class_attention()  # this and the query: before the work, if it is not there
    layers = request.stack(start_layer=start_layer)
    starts = None if request.reads_pool else request.starts(layers[-1])
    matrices, kind = attention_relevance(request, layers, gradients=gradients)
    fused = {id(layer): matrix for layer, matrix in zip(layers, matrices, strict=True)}

    def transition(layer: LayerAttention, rows: slice | list[int]) -> Block:
        matrix = fused[id(layer)][:, rows]
        stay = matrix.new_ones(matrix.shape[:2])
        if variant != BERT_CODE:
            return Block(matrix, stay)
        total = matrix.sum(dim=-1) + 1
        return Block(matrix / total[..., None], stay / total)

    answer = propagated(request, transition, start_layer=start_layer)
    if variant == BERT_CODE and starts is not None and not starts.every:
        answer.scores = _own_to_smallest(answer.scores, starts.weights)
        answer.identity = None
    answer.notes = (*answer.notes, *coarse(kind))
    return answer


def attention_relevance(
    request: Request, layers: tuple[LayerAttention, ...], *, gradients: bool
) -> tuple[list[Tensor], torch.dtype]:
    """Return, for each layer, the mean over heads of the positive part of gradient x relevance.

    Beside these, the type of number in which relevance was computed.

    Parameters
    ----------
    request : what was asked.
    layers : self-attention calls, first layer first.
    gradients : multiply by the gradient of the score.
    """
    refuse_windows(layers, request.method)
    _check_size(request, layers)
    handle = handle_of(request, None)
    slopes = [layer.gradients() for layer in layers] if gradients else None
    found: dict[int, Tensor] = {}
    kinds: set[torch.dtype] = set()
    waiting = list(range(len(layers)))

    def keep(weights: Tensor, relevance: Tensor) -> None:
        for position in reversed(waiting):
            if _is_of(layers[position], weights):
                part = relevance if slopes is None else relevance * slopes[position]
                found[position] = part.clamp(min=0).mean(dim=1).detach()
                kinds.add(relevance.dtype)
                waiting.remove(position)
                return

    rules = RelevanceRules(keep)
    first = layers[0].index
    known = (request.stream, first) in getattr(handle, "taps", {})
    start = None if known else handle.start(request.stream).requires_grad_()

    def begin(hidden: Tensor) -> Tensor:
        rules.beginning = hidden.detach().requires_grad_()
        return rules.beginning

    with torch.enable_grad():
        score = handle.score(
            request.stream,
            start,
            taps={first: begin} if known else None,
            rule=rules,
            activation=rules.activation,
        )
        leaf = start if rules.beginning is None else rules.beginning
        assert leaf is not None
        handle.gradient(score, leaf)
    if waiting:
        raise CaptureError(
            f"transformer_attribution: no relevance reached {', '.join(layers[i].name for i in waiting)}"
        )
    return [found[position] for position in range(len(layers))], min(
        kinds, key=lambda one: torch.finfo(one).bits
    )


def _is_of(layer: LayerAttention, weights: Tensor) -> bool:
    """Tell by one row whether weights that were computed again are those of a layer."""
    if tuple(weights.shape) != tuple(layer.source.shape):
        return False
    row = layer.num_queries // 2
    full = weights.dtype in (torch.float32, torch.float64)
    rtol, atol = (1e-3, 1e-6) if full else (0.0, 5e-2)  # in 16 bits, rounding of layers below adds up
    known, now = layer.weights(queries=row).double(), weights[:, :, [row]].double()
    return torch.allclose(known, now, rtol=rtol, atol=atol)


def _check_size(request: Request, layers: tuple[LayerAttention, ...]) -> None:
    batch, heads, queries, keys = layers[0].source.shape
    request.demand(
        8 * len(layers) * batch * heads * queries * keys * number_bytes(layers[0]),
        f"all attention matrices ({heads} heads of {queries}x{keys} in {len(layers)} layers) and their "
        "relevance are needed at once",
        "use a smaller input, or generic_relevance",
    )


def _own_to_smallest(scores: Tensor, start: Tensor) -> Tensor:
    """Give the query's own token the smallest value of the row."""
    return torch.where(start[:, 0] > 0, scores.amin(dim=-1, keepdim=True), scores)
