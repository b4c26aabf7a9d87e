"""Integrated gradients and gradient x input, through captum."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnlib.bands import percent
from attnlib.errors import MissingPackageError
from attnlib.methods.card import Option
from attnlib.methods.model_input import depends, handle_of, per_token, refuse_layers, refuse_query
from attnlib.methods.options import TARGET
from attnlib.methods.registry import method
from attnlib.methods.request import Answer, Request

__all__ = ["gradient_x_input", "integrated_gradients"]

_RULES = {"gauss-legendre": "gausslegendre", "trapezoid": "riemann_trapezoid"}
_INCOMPLETE = 0.05
_NO_ROW = "scores are sums over the pixels of a patch, or over the width of a token's embedding"


def _captum() -> Any:
    try:
        return import_module("captum.attr")
    except ImportError as error:
        lacks = (error.name or "").partition(".")[0]
        what = "captum" if lacks in ("", "captum") else f"{lacks} (for captum)"
        raise MissingPackageError(
            f'integrated gradients need {what}: pip install "attnlib[attribution]" ({error})'
        ) from None


def _exact_weights(gradient_func: Callable[..., Any], rule: str, steps: int) -> Callable[..., Any]:
    """Make captum's sum use exact weights that sum to 1, instead of its own rounded ones.

    captum is asked for one point at a time, in order along the line, so the n-th call belongs to the
    n-th weight; it multiplies what is returned here by its weight in float32.
    """
    if rule == "trapezoid":
        weights = np.ones(steps)
        weights[[0, -1]] = 0.5
        theirs, weights = weights / steps, weights / weights.sum()
    else:
        theirs = weights = np.polynomial.legendre.leggauss(steps)[1] / 2
    factors = iter(weights / theirs.astype(np.float32))

    def weighted(*args: Any, **kwargs: Any) -> Any:
        factor = float(next(factors))
        return tuple(grad * factor for grad in gradient_func(*args, **kwargs))

    return weighted


@method(
    "integrated_gradients",
    title="Integrated gradients",
    summary="The gradient of the target with respect to the input, averaged along the straight line from a "
    "baseline to the input, times the difference; it adds up to the change of the target.",
    formula=r"s_k = (x_k - x'_k)\int_0^1 \frac{\partial f\,(x' + a\,(x - x'))}{\partial x_k}\,da, \qquad "
    r"\sum_k s_k = f(x) - f(x')",
    family="input",
    paper="Sundararajan, Taly & Yan, Axiomatic Attribution for Deep Networks, ICML 2017, arXiv:1703.01365",
    bibtex="""@inproceedings{sundararajan2017axiomatic,
  title = {Axiomatic Attribution for Deep Networks},
  author = {Sundararajan, Mukund and Taly, Ankur and Yan, Qiqi},
  booktitle = {Proceedings of the 34th International Conference on Machine Learning},
  pages = {3319--3328},
  year = {2017}
}""",
    reference="captum, captum.attr.IntegratedGradients",
    options=(
        Option("steps", 32, "Points on the line from baseline to input.", "int", low=2),
        Option(
            "baseline",
            0.0,
            "Value of every number of the baseline: pixels after normalisation, or word embeddings. The "
            "choice decides much of the map.",
            "float",
        ),
        Option("rule", "gauss-legendre", "How the integral is summed.", "choice", tuple(_RULES)),
        TARGET,
    ),
    needs=("model",),
    takes_query=False,
    signed=True,
    cost="steps forward and backward passes, one at a time",
    deviations=(
        "captum rounds the weights of the sum to float32; they are used here as they are.",
        "The trapezoid rule is rescaled by n/(n-1): captum's weights of n points sum to (n-1)/n, which makes "
        "every value too small by that factor.",
        "Scores are summed over the pixels and colours of each patch, or over the width of each embedding; "
        "tokens that are no part of the input (class, registers) get 0.",
        "The sum is compared with the change of the target, and the map says so if they differ by more than "
        "5 %.",
    ),
    variants={"captum": "captum's weights as they are: rounded, and the trapezoid rule not rescaled"},
    extra="attribution",
)
def integrated_gradients(
    request: Request, *, steps: int, baseline: float, rule: str, target: Any, variant: str | None
) -> Answer:
    """Integrate gradients from a constant baseline to the input."""
    refuse_query(request, _NO_ROW)
    refuse_layers(request)
    attr = _captum()
    handle = handle_of(request, target)
    start = handle.start(request.stream).requires_grad_()
    end = torch.full_like(start, baseline, requires_grad=False)

    def forward(point: Tensor) -> Tensor:
        return depends(handle.score(request.stream, point, target=target))

    integrated = attr.IntegratedGradients(forward)
    if variant is None:
        integrated.gradient_func = _exact_weights(integrated.gradient_func, rule, steps)
    with torch.enable_grad():
        found = integrated.attribute(
            start,
            baselines=end,
            n_steps=steps,
            method=_RULES[rule],
            internal_batch_size=len(start),
        )
    found = found.detach()
    with torch.no_grad():
        change = (forward(start) - forward(end)).detach().double()
    gap = (found.double().flatten(1).sum(dim=1) - change).abs()
    notes = [f"baseline: {baseline:g} everywhere; another baseline gives another map"]
    if bool((gap > _INCOMPLETE * change.abs().clamp(min=1e-12)).any()) and variant is None:
        worst = float((gap / change.abs().clamp(min=1e-12)).max())
        notes.append(
            f"the attributions miss the change of the target by up to {percent(worst)} of it: take more steps"
        )
    return Answer(per_token(request, found), query="the output", notes=tuple(notes))


@method(
    "gradient_x_input",
    title="Gradient x input",
    summary="The gradient of the target with respect to the input, times the input.",
    formula=r"s_k = x_k\,\frac{\partial f(x)}{\partial x_k}",
    family="input",
    paper="Shrikumar et al., Not Just a Black Box: Learning Important Features Through Propagating "
    "Activation Differences, 2016, arXiv:1605.01713",
    bibtex="""@article{shrikumar2016not,
  title = {Not Just a Black Box: Learning Important Features Through Propagating Activation Differences},
  author = {Shrikumar, Avanti and Greenside, Peyton and Shcherbina, Anna and Kundaje, Anshul},
  journal = {arXiv preprint arXiv:1605.01713},
  year = {2016}
}""",
    reference="captum, captum.attr.InputXGradient",
    options=(TARGET,),
    needs=("model",),
    takes_query=False,
    signed=True,
    cost="one forward and one backward pass",
    deviations=(
        "Scores are summed over the pixels and colours of each patch, or over the width of each embedding; "
        "tokens that are no part of the input (class, registers) get 0.",
    ),
    extra="attribution",
)
def gradient_x_input(request: Request, *, target: Any) -> Answer:
    """Multiply the input by the gradient of the target."""
    refuse_query(request, _NO_ROW)
    refuse_layers(request)
    attr = _captum()
    handle = handle_of(request, target)
    start = handle.start(request.stream).requires_grad_()

    def forward(given: Tensor) -> Tensor:
        return depends(handle.score(request.stream, given, target=target))

    with torch.enable_grad():
        found = attr.InputXGradient(forward).attribute(start)
    return Answer(per_token(request, found.detach()), query="the output")
