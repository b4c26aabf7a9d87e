"""load_model: one door for every model."""

from __future__ import annotations

from typing import Any

import torch

from attnlib.errors import InputError, ModelError
from attnlib.models.embedded import EMBEDDED, MODELS
from attnlib.models.loaded import LoadedModel

__all__ = ["load_model"]


def load_model(
    name: str, *, device: Any = None, dtype: torch.dtype | str | None = None, revision: str | None = None
) -> LoadedModel:
    """Load a model with all that is needed to feed it and to read what it says.

    Parameters
    ----------
    name : one of :data:`attnlib.MODELS` (weights that come as a package or with attnlib).
    device : where to put it; the CPU if omitted.
    dtype : number type of the weights; as stored if omitted.
    revision : version on the hub, for hub ids.

    Raises
    ------
    InputError
        If the name is unknown.
    MissingPackageError
        If an optional package is needed; says which.
    ModelError
        If the weights cannot be loaded.
    """
    if name not in EMBEDDED:
        raise ModelError(f"unknown model {name!r}; attnlib itself brings {sorted(MODELS)}")
    if revision is not None:
        raise InputError(f"{name!r} comes as a package and has no revision; got {revision!r}")
    loaded = EMBEDDED[name]()
    return _placed(loaded, device, dtype)


def _placed(loaded: LoadedModel, device: Any, dtype: torch.dtype | str | None) -> LoadedModel:
    if isinstance(dtype, str):
        if not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise InputError(f"unknown dtype {dtype!r}; for example 'float32', 'float64', 'bfloat16'")
        dtype = getattr(torch, dtype)
    if device is not None or dtype is not None:
        loaded.model.to(device=device, dtype=dtype)  # type: ignore[arg-type]
    return loaded
