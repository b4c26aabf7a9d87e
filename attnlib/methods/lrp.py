"""AttnLRP and CP-LRP, by rules of this package that are in force for one run only."""

from __future__ import annotations

from typing import Any

import torch

from attnlib.bands import percent
from attnlib.methods.lrp_rules import Rules
from attnlib.methods.model_input import handle_of, per_token, refuse_layers, refuse_query
from attnlib.methods.options import TARGET
from attnlib.methods.registry import method
from attnlib.methods.request import Answer, Request

__all__ = ["attnlrp", "cp_lrp"]

LICENCE = (
    "The code is this package's own. The authors of AttnLRP publish theirs (LXT) under the Clear BSD "
    "licence, without patent rights, with the note that layer-wise relevance propagation can only be "
    "used free of charge for personal and scientific purposes: ask them before commercial use."
)
_COST = "one forward and one backward pass"
_DEVIATIONS = (
    "Rules take the place of torch functions, in this thread and for one run; the published code changes "
    "classes of the whole process, for good.",
    "f(x)/x is taken as f(x)/(x + 1e-10), as in the published code, and as 0 where that would divide by 0.",
    "A function without a rule is refused by name when relevance would have to go through it.",
    "A length (the norm of a state as the target) keeps its gradient, which hands on all of its relevance.",
    "Linear maps and convolutions keep their gradient, which is the epsilon rule without its epsilon. The "
    "paper's vision transformers and the published image example use the gamma rule there, tuned per model.",
    "Scores are summed over the width of each embedding, or over the pixels and colours of each patch.",
)


def relevance(request: Request, target: Any, *, conservative: bool) -> Answer:
    """Run the model with changed backward rules and return input x gradient.

    Parameters
    ----------
    request : what was asked.
    target : what is explained.
    conservative : CP-LRP instead of AttnLRP.
    """
    refuse_query(request, "scores say how much each token of the input contributed to the target")
    refuse_layers(request)
    handle = handle_of(request, target)
    start = handle.start(request.stream).requires_grad_()
    rules = Rules(conservative=conservative)
    with torch.enable_grad():
        score = handle.score(request.stream, start, target=target, rule=rules, activation=rules.activation)
        found = (start * handle.gradient(score, start)).detach()
    scores = per_token(request, found)
    gap = float(
        (scores.sum(dim=-1) - score.detach()).abs().max() / score.detach().abs().max().clamp(min=1e-30)
    )
    notes = (
        f"relevance adds up to the target's score but for {percent(gap)} of it, which biases"
        + ("" if conservative else " and the softmax")
        + " took",
    )
    return Answer(scores, query="the output", notes=notes)


@method(
    "attnlrp",
    title="AttnLRP",
    summary="Layer-wise relevance propagation with rules for attention: the target's score is handed back "
    "layer by layer to the inputs that made it.",
    formula=r"R = x\odot\tilde\nabla_x f:\quad \sigma(x)\mapsto \tfrac{\sigma(x)}{x},\quad "
    r"A V\mapsto \tfrac12 A V,\quad \operatorname{softmax}\mapsto \text{its gradient},\quad "
    r"\operatorname{norm}\mapsto \text{deviation constant}",
    family="relevance",
    paper="Achtibat et al., AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers, ICML "
    "2024, arXiv:2402.05602; in the form of gradient x input: Arras et al., 2025, arXiv:2502.15886",
    bibtex="""@inproceedings{achtibat2024attnlrp,
  title = {{AttnLRP}: Attention-Aware Layer-Wise Relevance Propagation for Transformers},
  author = {Achtibat, Reduan and Hatefi, Sayed Mohammad Vakilzadeh and Dreyer, Maximilian and Jain, Aakriti
            and Wiegand, Thomas and Lapuschkin, Sebastian and Samek, Wojciech},
  booktitle = {Proceedings of the 41st International Conference on Machine Learning},
  pages = {135--168},
  year = {2024}
}""",
    reference="rachtibat/LRP-eXplains-Transformers, lxt/efficient",
    options=(TARGET,),
    needs=("model",),
    takes_query=False,
    signed=True,
    cost=_COST,
    deviations=_DEVIATIONS,
    licence=LICENCE,
)
def attnlrp(request: Request, *, target: Any) -> Answer:
    """Propagate relevance through attention, softmax included."""
    return relevance(request, target, conservative=False)


@method(
    "cp_lrp",
    title="CP-LRP",
    summary="Conservative relevance propagation: attention weights, gates and norms count as constants, so "
    "that without biases the relevance adds up to the target's score exactly.",
    formula=r"R = x\odot\tilde\nabla_x f:\quad \sigma(x)\mapsto \tfrac{\sigma(x)}{x},\quad "
    r"A V\mapsto A\ \text{constant},\quad \operatorname{norm}\mapsto \text{deviation constant}",
    family="relevance",
    paper="Ali et al., XAI for Transformers: Better Explanations through Conservative Propagation, ICML "
    "2022, arXiv:2202.07304",
    bibtex="""@inproceedings{ali2022xai,
  title = {{XAI} for Transformers: Better Explanations through Conservative Propagation},
  author = {Ali, Ameen and Schnake, Thomas and Eberle, Oliver and Montavon, Gr{\\'e}goire and
            M{\\"u}ller, Klaus-Robert and Wolf, Lior},
  booktitle = {Proceedings of the 39th International Conference on Machine Learning},
  pages = {435--451},
  year = {2022}
}""",
    reference="rachtibat/LRP-eXplains-Transformers, lxt/efficient (cp_LRP)",
    options=(TARGET,),
    needs=("model",),
    takes_query=False,
    signed=True,
    cost=_COST,
    deviations=(
        "The paper, and its code AmeenAli/XAI_Transformers, change attention and layer norms, and take "
        "gradient x input elsewhere. Activations by f(x)/x and constant gates are those of the LXT code.",
        *_DEVIATIONS,
    ),
    licence=LICENCE,
)
def cp_lrp(request: Request, *, target: Any) -> Answer:
    """Propagate relevance with attention weights and gates held constant."""
    return relevance(request, target, conservative=True)
