"""Which number of the model's output is explained."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from attnlib.errors import InputError

__all__ = ["target_score"]


def target_score(
    output: Any,
    target: Any,
    *,
    labels: Mapping[str, int] | None = None,
) -> Tensor | Mapping[str, Sequence[Tensor]]:
    """Return one score per item: the logit of the target, or what the function says.

    Parameters
    ----------
    output : what the model returned.
    target : label index, label name, one per item (a list, array or tensor), or
        ``callable(output) -> Tensor[batch]``;
        a callable may also return stream -> one such tensor per layer (each layer's own score).
    labels : label name -> index.

    Raises
    ------
    InputError
        If the output has no logits, the target does not fit them, or a function returns more than one
        score per item.
    """
    if callable(target):
        score = target(output)
        if isinstance(score, Mapping) and all(isinstance(one, list | tuple) for one in score.values()):
            return score
        if not isinstance(score, Tensor):
            raise InputError(
                "the target function must return a tensor [batch], such as output.logits[:, 0], got "
                f"{type(score).__name__}"
            )
        if score.dim() > 1:
            raise InputError(
                f"the target function returned a tensor of shape {list(score.shape)}; one score per item is "
                "needed, [batch]: choose a column or take a mean over all but the first axis"
            )
        return score
    logits = _logits(output)
    batch = logits.shape[0]
    given: Any = target.tolist() if hasattr(target, "tolist") else target  # an array or a tensor
    wanted = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given] * batch
    if len(wanted) != batch:
        raise InputError(f"{len(wanted)} targets for a batch of {batch}: give one, or one per item")
    indices = [_index(one, labels or {}, logits.shape[-1]) for one in wanted]
    if logits.dim() == 3:  # language models: the next token after the last one
        logits = logits[:, -1]
    return logits[range(batch), indices]


def _logits(output: Any) -> Tensor:
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if logits is None and isinstance(output, Mapping):
        logits = output.get("logits")
    if logits is None:
        logits = getattr(output, "logits_per_image", None)
    if logits is None and isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        logits = output[0]
    if not isinstance(logits, Tensor) or logits.dim() not in (2, 3):
        raise InputError(
            "the output has no logits [batch, label]: give target as a function of the output, such as "
            "target=lambda output: output.last_hidden_state[:, 0].norm(dim=-1)"
        )
    return logits


def _index(target: Any, labels: Mapping[str, int], num_labels: int) -> int:
    if isinstance(target, str):
        if target not in labels:
            known = ", ".join(list(labels)[:8])
            raise InputError(f"unknown label {target!r}; the model knows {known or 'no label names'}")
        return labels[target]
    try:
        index = operator.index(target)
    except TypeError:
        raise InputError(
            f"a target is a label index, a label name, one of these per item, or a function of the output; "
            f"got {target!r}"
        ) from None
    if not -num_labels <= index < num_labels:
        raise InputError(f"target {target} is outside the {num_labels} labels")
    return index
