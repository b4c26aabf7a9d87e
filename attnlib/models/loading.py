"""load_model: one door for every model."""

from __future__ import annotations

import difflib
import json
import os
from contextlib import nullcontext
from pathlib import Path

import torch

from attnlib.collector import paused
from attnlib.errors import InputError, ModelError
from attnlib.models.embedded import EMBEDDED, MODELS
from attnlib.models.loaded import LoadedModel, ModelCard
from attnlib.models.trained import trained_folders

__all__ = ["load_model"]

_EXAMPLES = {"timm": "timm:vit_small_patch16_224.augreg_in1k", "torchvision": "torchvision:vit_b_16"}


def load_model(
    name: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Load a model with all that is needed to feed it and to read what it says.

    Parameters
    ----------
    name : one of :data:`attnlib.MODELS` (at hand without a network), a local folder, "timm:NAME",
        "torchvision:NAME", or an id of the Hugging Face hub.
    device : where to put it; the CPU if omitted.
    dtype : number type of the weights, such as "float64". If omitted: float32 for the models that come with
        attnlib, as stored for all others.
    revision : branch, tag or commit on the hub, for hub ids.
    trust_remote_code : run code that the author of a hub model wrote. Off unless asked for.

    Returns
    -------
    The model in evaluation mode, otherwise as its library loads it: its attention implementation is
    untouched.

    Raises
    ------
    InputError
        If the arguments do not fit one another.
    MissingPackageError
        If an optional package is needed; says which.
    ModelError
        If the model or its weights cannot be found or loaded; weights are read from safetensors only.
    """
    if not isinstance(name, str | os.PathLike):
        raise InputError(
            f"load_model takes the name or the folder of a model, got {type(name).__name__}; a model that is "
            "loaded already goes straight to capture(model, inputs)"
        )
    name = os.fspath(name)
    if not name.strip():
        raise InputError("the name of the model is empty; see attnlib.MODELS for those at hand")
    kind = _dtype(dtype)
    where = _device(device)
    hub = _is_hub_id(name)
    if revision is not None and not hub:
        raise InputError(f"{name!r} is not on the hub and has no revision; got revision={revision!r}")
    at_hand = name in MODELS
    with paused() if at_hand else nullcontext():  # a download may take long
        loaded = _load(name, kind, revision, trust_remote_code)
    if where is not None or kind is not None:
        loaded.model.to(device=where, dtype=kind)  # type: ignore[arg-type]
    return loaded


def _is_hub_id(name: str) -> bool:
    known = name in EMBEDDED or name in trained_folders() or name.startswith(("timm:", "torchvision:"))
    return not known and _folder(name) is None


def _folder(name: str) -> Path | None:
    """Return the folder of that name, if there is one."""
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError):  # a name too long for a file, the home of nobody
        return None


def _load(name: str, dtype: torch.dtype | None, revision: str | None, trust: bool) -> LoadedModel:
    if name in EMBEDDED:
        return EMBEDDED[name]()
    library, _, rest = name.partition(":")
    if library in ("timm", "torchvision"):
        if not rest.strip():
            raise InputError(f"{name!r} names no model of {library}: such as {_EXAMPLES[library]!r}")
        from attnlib.models import vision_libraries as libraries

        load = libraries.load_from_timm if library == "timm" else libraries.load_from_torchvision
        return load(rest, dtype=dtype)
    from attnlib.models.hub import load_from_transformers

    trained = trained_folders().get(name)
    if trained is not None:
        return load_from_transformers(trained, name=name, card=MODELS[name], dtype=dtype or torch.float32)
    folder = _folder(name)
    if folder is not None:
        if _is_timm(folder):
            from attnlib.models.vision_libraries import load_from_timm

            return load_from_timm(str(folder), dtype=dtype)
        shown = folder.resolve().name
        card = ModelCard(shown, "a model from a local folder", "local folder")
        return load_from_transformers(folder, name=shown, card=card, dtype=dtype, trust_remote_code=trust)
    _refuse_what_is_no_hub_id(name)
    card = ModelCard(name, "a model of the Hugging Face hub", f"https://huggingface.co/{name}")
    return load_from_transformers(
        name, name=name, card=card, dtype=dtype, revision=revision, trust_remote_code=trust
    )


def _is_timm(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "architecture" in config and "model_type" not in config


def _refuse_what_is_no_hub_id(name: str) -> None:
    looks_local = name.startswith((".", "/", "~", "\\")) or "\\" in name or name.count("/") > 1
    if looks_local or os.path.isfile(name):
        raise ModelError(
            f"there is no folder {name!r}; a local model is a folder with config.json and *.safetensors"
        )
    near = difflib.get_close_matches(name, MODELS, n=1, cutoff=0.6)
    if near and "/" not in name:
        raise ModelError(f"unknown model {name!r}; did you mean {near[0]!r}? At hand: {', '.join(MODELS)}")


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    if dtype is None or isinstance(dtype, torch.dtype):
        kind = dtype
    else:
        kind = getattr(torch, dtype.removeprefix("torch."), None)
    if dtype is not None and not (isinstance(kind, torch.dtype) and kind.is_floating_point):
        raise InputError(f"dtype must be a floating type such as 'float32' or 'bfloat16', got {dtype!r}")
    return kind


def _device(device: str | torch.device | None) -> torch.device | None:
    if device is None:
        return None
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"the device {str(device)!r} cannot be used here: {error}") from None
    return where
