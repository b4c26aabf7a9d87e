"""Equations of einsum with every axis named."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

__all__ = ["spelled_out"]


def spelled_out(equation: str, operands: Sequence[Tensor]) -> str:
    """Return an equation without spaces, with a letter for each axis that "..." stands for.

    Parameters
    ----------
    equation : with or without "...".
    operands : the tensors it is for.
    """
    equation = equation.replace(" ", "")
    if "..." not in equation:
        return equation
    inputs, arrow, result = equation.partition("->")
    letters = inputs.split(",")
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation]
    own = [one.dim() - len(word.replace("...", "")) for one, word in zip(operands, letters, strict=True)]
    width = max(own)
    words = [
        word.replace("...", "".join(spare[width - mine : width]))
        for mine, word in zip(own, letters, strict=True)
    ]
    return ",".join(words) + arrow + result.replace("...", "".join(spare[:width]))
