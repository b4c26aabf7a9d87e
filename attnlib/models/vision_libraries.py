"""Models of timm and torchvision."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from attnlib.errors import InputError, ModelError, PictureError
from attnlib.layout import TokenLayout
from attnlib.models.loaded import LoadedModel, ModelCard, Prepared
from attnlib.models.measured_view import measure_view
from attnlib.models.packages import required
from attnlib.models.pixels import PatchProcessor, only_pictures

__all__ = ["TransformPreparer", "load_from_timm", "load_from_torchvision"]

Size = int | tuple[int, int] | None


class TransformPreparer:
    """Prepares pictures by a transform of the model's library, and measures what it crops.

    Parameters
    ----------
    transform : from an RGB image to a tensor [channel, height, width].
    model : the model; its forward pass names its first argument.
    patches : processor that keeps the aspect, for models that take any size; None for the others.
    """

    def __init__(
        self, transform: Callable[[Image.Image], Any], model: nn.Module, patches: PatchProcessor | None = None
    ) -> None:
        self.transform, self.patches = transform, patches
        self.argument = next(iter(inspect.signature(model.forward).parameters))

    def __call__(
        self, sources: Sequence[Any], *, size: Size = None, texts: Sequence[str] | None = None
    ) -> Prepared:
        """Prepare a batch of pictures."""
        pictures = only_pictures(sources, texts)
        if size is not None:
            if self.patches is None:
                raise InputError(
                    f"this model takes one size of picture only; got size={size}. Leave size out"
                )
            prepared = self.patches(pictures, size=size)
            return Prepared({self.argument: prepared.inputs["pixel_values"]}, prepared.views)
        values = [self._pixels(picture.to_pil()) for picture in pictures]
        if len({value.shape for value in values}) > 1:
            raise PictureError("pictures of different shapes cannot share a batch: pass them one by one")
        views = tuple(
            measure_view(self._pixels, picture.size, (value.shape[1], value.shape[2]))
            for picture, value in zip(pictures, values, strict=True)
        )
        return Prepared({self.argument: torch.from_numpy(np.stack(values))}, views)

    def _pixels(self, image: Image.Image) -> np.ndarray:
        return np.asarray(self.transform(image), dtype=np.float32)


def load_from_timm(name: str, *, dtype: torch.dtype | None = None) -> LoadedModel:
    """Load a pretrained model of timm: a name of its list, or a folder saved for the hub.

    Parameters
    ----------
    name : such as "vit_small_patch16_224.augreg_in1k", or a folder.
    dtype : number type; float32 if omitted.

    Raises
    ------
    MissingPackageError
        If timm is not installed.
    ModelError
        If the name is unknown or its weights cannot be had.
    """
    timm = required("timm", extra="timm")
    folder = Path(name).expanduser()
    source = name
    if folder.is_dir():
        if not any(folder.glob("*.safetensors")):
            raise ModelError(f"the folder {folder.name!r} holds no weights as *.safetensors")
        source = f"local-dir:{folder.resolve()}"
    elif os.sep in name:
        raise ModelError(f"there is no folder {name!r}")
    try:
        model = _create(timm, source)
    except Exception as error:
        raise ModelError(_timm_advice(timm, name, error)) from error
    if dtype is not None:
        model.to(dtype)
    config = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**config, is_training=False)
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    flexible = bool(getattr(model, "dynamic_img_size", False)) and patch is not None and patch[0] == patch[1]
    patches = None
    if flexible and patch is not None:
        mean, std = tuple(config["mean"]), tuple(config["std"])
        patches = PatchProcessor(int(patch[0]), int(config["input_size"][-1]), mean, std)
    shown = folder.name if folder.is_dir() else name
    licence = str(getattr(model, "pretrained_cfg", {}).get("license") or "not stated")
    card = ModelCard(f"timm:{shown}", f"a model of timm ({type(model).__name__})", "timm", licence, "timm")
    preparer = TransformPreparer(transform, model, patches)
    labels = _timm_labels(timm, model)
    return LoadedModel(
        card.name, model.eval(), transform, labels, card, preparer, lambda: _timm_layout(model, config)
    )


def _create(timm: Any, source: str) -> nn.Module:
    """Create the model, with positions that are interpolated to the size of the input where it can."""
    try:
        return timm.create_model(source, pretrained=True, dynamic_img_size=True)
    except TypeError:
        return timm.create_model(source, pretrained=True)


def _timm_advice(timm: Any, name: str, error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    known = set(timm.list_models()) | set(timm.list_models(pretrained=True))
    if name not in known and not name.startswith(("hf-hub:", "hf_hub:")) and not Path(name).is_dir():
        near = timm.list_models(f"*{name.split('.')[0][:12]}*")[:5]
        return f"timm has no model {name!r}" + (f"; did you mean one of {near}?" if near else "")
    if "pretrained" in text.lower() and "no " in text.lower():
        return f"timm has no pretrained weights for {name!r}, and random ones say nothing ({text})"
    return (
        f"cannot load the weights of {name!r}: they are not on this machine and cannot be fetched. Load a "
        f"folder that timm saved: load_model('timm:/path/to/folder') ({type(error).__name__}: {text})"
    )


def _timm_labels(timm: Any, model: Any) -> tuple[str, ...]:
    given = dict(getattr(model, "pretrained_cfg", None) or {})
    if given.get("label_names"):
        names = given["label_names"]
        return tuple(map(str, names.values() if isinstance(names, dict) else names))
    count = int(getattr(model, "num_classes", 0) or 0)
    subset = timm.data.infer_imagenet_subset(model)
    if subset:
        info = timm.data.ImageNetInfo(subset)
        return tuple(info.index_to_description(i) for i in range(count))
    return tuple(f"class {i}" for i in range(count))


def _timm_layout(model: Any, config: dict[str, Any]) -> TokenLayout | None:
    """Return the layout of a plain ViT of timm; other architectures are known after a capture."""
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    count = getattr(model, "num_prefix_tokens", None)
    if patch is None or count is None:
        return None
    height, width = config["input_size"][1:]
    names = ["class"] if getattr(model, "cls_token", None) is not None else []
    if getattr(model, "dist_token", None) is not None:
        names.append("distillation")
    names += [f"register {i + 1}" for i in range(int(count) - len(names))]
    reads_class = getattr(model, "global_pool", "") == "token" and names
    readout: Any = tuple(range(min(2, len(names)))) if "distillation" in names else (0,)
    grid = (height // patch[0], width // patch[1])
    return TokenLayout(grid, tuple(patch), names, readout if reads_class else "patches")


def load_from_torchvision(name: str, *, dtype: torch.dtype | None = None) -> LoadedModel:
    """Load a pretrained model of torchvision, with its default weights.

    Parameters
    ----------
    name : such as "vit_b_16", or "vit_b_16/IMAGENET1K_SWAG_LINEAR_V1" for certain weights.
    dtype : number type; float32 if omitted.

    Raises
    ------
    MissingPackageError
        If torchvision is not installed.
    ModelError
        If the name is unknown or its weights cannot be had.
    """
    library = required("torchvision", extra="timm").models
    plain, _, wanted = name.partition("/")
    if plain not in library.list_models():
        near = [other for other in library.list_models() if plain[:3] in other][:8]
        raise ModelError(
            f"torchvision has no model {plain!r}" + (f"; did you mean one of {near}?" if near else "")
        )
    choices = library.get_model_weights(plain)
    if wanted and wanted not in choices.__members__:
        raise ModelError(f"{plain!r} has no weights {wanted!r}; there are {list(choices.__members__)}")
    weights = choices[wanted] if wanted else choices["DEFAULT"]
    try:
        model = library.get_model(plain, weights=weights)
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"cannot load the weights of {plain!r}: they are not in {torch.hub.get_dir()}/checkpoints and "
            f"cannot be fetched. Put {Path(weights.url).name} there ({type(error).__name__}: {error})"
        ) from error
    if dtype is not None:
        model.to(dtype)
    card = ModelCard(
        f"torchvision:{name}",
        f"a model of torchvision ({type(model).__name__}, {weights.name})",
        "torchvision",
        "BSD-3-Clause (code); see torchvision for the weights",
        "timm",
    )
    transform = weights.transforms()
    labels = tuple(map(str, weights.meta.get("categories", ())))
    preparer = TransformPreparer(transform, model)
    return LoadedModel(
        card.name, model.eval(), transform, labels, card, preparer, lambda: _torchvision_layout(model)
    )


def _torchvision_layout(model: Any) -> TokenLayout | None:
    patch, size = getattr(model, "patch_size", None), getattr(model, "image_size", None)
    if not isinstance(patch, int) or not isinstance(size, int) or not hasattr(model, "class_token"):
        return None
    return TokenLayout((size // patch, size // patch), patch, ("class",), (0,))
