"""What a capture says when a call cannot be read: never an error of another library."""

from __future__ import annotations

from types import TracebackType
from typing import NoReturn

import torch

from attnlib.errors import AttnlibError, CaptureError

__all__ = ["Readable", "refuse_dropout"]


class Readable:
    """Turn what goes wrong while a call is read into a refusal that names the module.

    A class, not a generator: it is entered at every torch call of a forward pass.

    Parameters
    ----------
    name : path of the module that runs.

    Raises
    ------
    CaptureError
        In place of any error that is not attnlib's own, except those of memory.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        passes = (AttnlibError, torch.OutOfMemoryError, MemoryError)
        if not isinstance(problem, Exception) or isinstance(problem, passes):
            return
        first = (str(problem).strip().splitlines() or [""])[0]
        raise CaptureError(
            f"{self._name or 'the model'}: what it computed could not be read ({type(problem).__name__}: "
            f"{first}), so no map is given; tensors without numbers of their own (meta, fake or nested "
            "tensors, torch.func.vmap) cannot be captured"
        ) from problem


def refuse_dropout(name: str, share: str) -> NoReturn:
    """Refuse a call that drops weights at random.

    Parameters
    ----------
    name : path of the module.
    share : how many are dropped, in brackets; "" where it is not known.

    Raises
    ------
    CaptureError
        Always.
    """
    raise CaptureError(f"{name} drops attention weights at random{share}: call model.eval() first")
