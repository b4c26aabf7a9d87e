"""What a capture says when a call cannot be read: never an error of another library."""

from __future__ import annotations

from types import TracebackType
from typing import NoReturn

import torch

from attnlib.errors import AttnlibError, CaptureError

__all__ = ["KERNELS", "Readable", "refuse_dropout", "refuse_kernel"]

# kernels behind scaled_dot_product_attention and torch's own layers, when a model calls them by themselves
KERNELS = (
    "_scaled_dot_product",
    "_flash_attention",
    "_efficient_attention",
    "_native_multi_head_attention",
    "_transformer_encoder_layer_fwd",
)


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


def refuse_kernel(name: str, kernel: str) -> NoReturn:
    """Refuse a call of a kernel that keeps its weights to itself.

    Parameters
    ----------
    name : path of the module.
    kernel : name of the function.

    Raises
    ------
    CaptureError
        Always.
    """
    raise CaptureError(
        f"{name or 'the model'} calls the kernel {kernel} by itself, which keeps its weights to itself: "
        "torch.nn.functional.scaled_dot_product_attention shows them"
    )
