"""From pictures to pixel_values, keeping the aspect where the model can take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from attnlib.errors import InputError, PictureError
from attnlib.models.loaded import Prepared
from attnlib.models.measured_view import view_notes
from attnlib.picture import Picture, View, load_picture

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "PatchProcessor", "only_pictures"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def only_pictures(sources: Sequence[Any], texts: Sequence[str] | None) -> list[Picture]:
    """Read the pictures for a model that takes no texts.

    Raises
    ------
    InputError
        If there are texts.
    PictureError
        If a picture cannot be read.
    """
    if texts is not None:
        raise InputError("this model reads pictures only; texts= is for models that compare the two")
    return [load_picture(source) for source in sources]


@dataclass(frozen=True)
class PatchProcessor:
    """Resizes pictures to whole patches with their aspect kept, and normalises them.

    The longer side becomes ``size``; the other is rounded to whole patches, so the aspect changes by
    less than half a patch and nothing is cropped or padded.

    Parameters
    ----------
    patch_size : pixels of a patch.
    size : default length of the longer side.
    mean, std : normalisation per channel.
    resample : filter of Pillow for resizing.
    """

    patch_size: int
    size: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    resample: int = Image.Resampling.BICUBIC

    def input_size(
        self, picture_size: tuple[int, int], size: int | tuple[int, int] | None = None
    ) -> tuple[int, int]:
        """Return (height, width) of the model input for a picture of a given size."""
        patch = self.patch_size
        if isinstance(size, tuple | list):
            if len(size) != 2 or any(side < patch or side % patch for side in size):
                raise InputError(f"size must be (height, width) in whole patches of {patch} px, got {size}")
            return size[0], size[1]
        longest = self.size if size is None else size
        if not isinstance(longest, int) or longest < patch:
            raise InputError(f"size must be pixels, at least one patch ({patch} px), got {longest!r}")
        scale = longest / max(picture_size)
        height, width = (max(1, round(side * scale / patch)) * patch for side in picture_size)
        return height, width

    def pixels(self, image: Image.Image, size: tuple[int, int]) -> Float[Tensor, "channel height width"]:
        """Return one normalised picture."""
        resized = image.resize((size[1], size[0]), Image.Resampling(self.resample))
        values = torch.from_numpy(np.asarray(resized, dtype=np.float32) / 255).permute(2, 0, 1)
        mean, std = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (self.mean, self.std))
        return (values - mean) / std

    def __call__(
        self,
        sources: Sequence[Any],
        *,
        size: int | tuple[int, int] | None = None,
        texts: Sequence[str] | None = None,
    ) -> Prepared:
        """Prepare a batch of pictures.

        Raises
        ------
        PictureError
            If the pictures need inputs of different sizes.
        """
        pictures = only_pictures(sources, texts)
        sizes = [self.input_size(picture.size, size) for picture in pictures]
        if len(set(sizes)) > 1:
            raise PictureError(
                f"pictures of different shapes cannot share a batch: {list(map(str, pictures))} would become "
                f"{sizes}; pass them one by one, or give one size=(height, width) to distort them all"
            )
        values = torch.stack([self.pixels(p.to_pil(), s) for p, s in zip(pictures, sizes, strict=True)])
        views = []
        for picture, chosen in zip(pictures, sizes, strict=True):
            whole = View.whole(picture.size, chosen)
            views.append(replace(whole, notes=view_notes(whole.box, picture.size, chosen)))
        return Prepared({"pixel_values": values}, tuple(views))
