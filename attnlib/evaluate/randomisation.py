"""Does the map depend on what the model learned, and on the question? Randomisation checks.

A map that stays the same when the model's weights are replaced by noise shows the picture, not the
model [1]_. A map that stays the same for another class does not answer the question about the class.

References
----------
.. [1] Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, arXiv:1810.03292.
.. [2] Sixt, Granz & Landgraf, "When Explanations Lie", ICML 2020, arXiv:1912.09818.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnlib.errors import InputError
from attnlib.evaluate.statistics import mean_ranks

__all__ = [
    "RandomisationCurve",
    "another_label",
    "parameter_randomisation",
    "randomised",
    "similarity",
    "stages",
]


def similarity(
    first: Float[Tensor, "batch height width"], second: Float[Tensor, "batch height width"]
) -> Float[Tensor, "batch"]:
    """Return Spearman's rank correlation of two maps of each item.

    Ties get their mean rank. Two constant maps have 1, a constant map and another one 0: a map that
    never changes must not pass for one that depends on the model. NaN where a map is not finite.
    """
    if first.shape != second.shape:
        raise InputError(f"maps of different shape: {list(first.shape)} and {list(second.shape)}")
    if first.dim() < 2:
        raise InputError(f"maps must be [batch, height, width], got {list(first.shape)}")
    ranks = [mean_ranks(maps.flatten(1)) for maps in (first, second)]
    centred = [rank - rank.mean(dim=1, keepdim=True) for rank in ranks]
    norms = [part.norm(dim=1) for part in centred]
    product = (centred[0] * centred[1]).sum(dim=1)
    flat = (norms[0] == 0) & (norms[1] == 0)
    scale = norms[0] * norms[1]
    correlation = torch.where(scale > 0, product / scale.where(scale > 0, torch.ones_like(scale)), 0.0)
    finite = torch.isfinite(first).flatten(1).all(dim=1) & torch.isfinite(second).flatten(1).all(dim=1)
    return torch.where(flat, 1.0, correlation).where(finite, torch.full_like(correlation, float("nan")))


def stages(model: nn.Module) -> tuple[str, ...]:
    """Return the stages that are randomised one by one: what follows the blocks, blocks, what precedes.

    From the output to the input. A stage is the longest list of modules of one kind (the blocks), and
    every other module with weights of its own; a model without such a list has one stage per module.
    """
    lists = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.ModuleList)]
    blocks: list[str] = []
    if lists:
        name, longest = max(lists, key=lambda item: len(item[1]))
        blocks = [f"{name}.{i}" for i in range(len(longest))]
    others = []
    for name, part in model.named_modules():
        inside = any(name == block or name.startswith(f"{block}.") for block in blocks)
        if name and not inside and any(True for _ in part.parameters(recurse=False)):
            others.append(name)
    order = [name for name, _ in model.named_modules()]
    first = order.index(blocks[0]) if blocks else 0
    before = [name for name in others if order.index(name) < first]
    after = [name for name in others if name not in before]
    return (*reversed(after), *reversed(blocks), *reversed(before))


@contextmanager
def randomised(model: nn.Module, names: Sequence[str], *, seed: int = 0) -> Iterator[nn.Module]:
    """Replace the weights of the named modules by others for a while; everything is put back.

    Each tensor is replaced by Gaussian noise with the tensor's own mean and spread, so that
    activations keep their size; one that is constant (a fresh bias or gain) stays as it is.

    Raises
    ------
    InputError
        If a name is no module of the model.
    """
    parts = dict(model.named_modules())
    unknown = [name for name in names if name not in parts]
    if unknown:
        raise InputError(f"the model has no modules {unknown}; see stages(model)")
    generator = torch.Generator().manual_seed(seed)
    kept: dict[int, tuple[nn.Parameter, Tensor]] = {}
    try:
        with torch.no_grad():
            for name in names:
                for parameter in parts[name].parameters():
                    if id(parameter) in kept:
                        continue
                    kept[id(parameter)] = (parameter, parameter.detach().clone())
                    noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                    spread = parameter.std(unbiased=False) if parameter.numel() > 1 else 0.0
                    parameter.copy_(noise * spread + parameter.mean())
        yield model
    finally:
        with torch.no_grad():
            for parameter, value in kept.values():
                parameter.copy_(value)


@dataclass(frozen=True, eq=False)
class RandomisationCurve:
    """How alike the map stays while the model's weights are replaced.

    Parameters
    ----------
    stages : what was replaced at each step; cascading steps include all before them.
    similarity : [step, batch], rank correlation with the map of the model as it is.
    cascading : whether the steps add up.
    """

    stages: tuple[str, ...]
    similarity: Float[Tensor, "step batch"]
    cascading: bool

    @property
    def final(self) -> Float[Tensor, "batch"]:
        """Similarity after the last step: near 0 is good, 1 means the weights do not matter."""
        return self.similarity[-1]


def parameter_randomisation(
    model: nn.Module,
    maps_of: Callable[[], Tensor],
    *,
    cascading: bool = True,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> RandomisationCurve:
    """Compare the maps with those of the same model with replaced weights.

    Parameters
    ----------
    model : its weights are replaced for a while and put back, also when ``maps_of`` fails.
    maps_of : computes the maps [batch, height, width] with the model as it is at the moment.
    cascading : replace from the output on, one stage more at each step; otherwise one stage at a time.
    names : the stages, by default :func:`stages`.
    seed : of the new weights.
    """
    steps = tuple(names) if names is not None else stages(model)
    if not steps:
        raise InputError("no stage to randomise: give module names")
    original = maps_of()
    alike = []
    for number in range(len(steps)):
        chosen = steps[: number + 1] if cascading else steps[number : number + 1]
        with randomised(model, chosen, seed=seed):
            alike.append(similarity(original, torch.nan_to_num(maps_of())))
    return RandomisationCurve(steps, torch.stack(alike), cascading)


def another_label(
    maps_of: Callable[[Tensor], Tensor], targets: Tensor, others: Tensor
) -> Float[Tensor, "batch"]:
    """Return how alike the maps for two labels of the same pictures are.

    Parameters
    ----------
    maps_of : label indices [batch] in, maps [batch, height, width] out.
    targets, others : two labels for each item. A method that ignores the label has 1.
    """
    if bool((targets == others).any()):
        raise InputError("the two labels of an item are the same: nothing to compare")
    return similarity(maps_of(targets), maps_of(others))
