"""What a capture says when a call cannot be read: never an error of another library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch

from attnlib.errors import AttnlibError, CaptureError

__all__ = ["readable", "refuse_dropout"]


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn what goes wrong while a call is read into a refusal that names the module.

    Parameters
    ----------
    name : path of the module that runs.

    Raises
    ------
    CaptureError
        In place of any error that is not attnlib's own, except those of memory.
    """
    try:
        yield
    except (AttnlibError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as problem:
        first = (str(problem).strip().splitlines() or [""])[0]
        raise CaptureError(
            f"{name or 'the model'}: what it computed could not be read ({type(problem).__name__}: {first}), "
            "so no map is given; tensors without numbers of their own (meta, fake or nested tensors, "
            "torch.func.vmap) cannot be captured"
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
