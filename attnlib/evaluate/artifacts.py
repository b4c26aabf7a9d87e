"""How much of a map lies on artifact tokens: background patches that the model uses as notebooks."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from attnlib.errors import InputError
from attnlib.hooks.given_back import hooks_given_back
from attnlib.layout import TokenLayout

__all__ = [
    "MADS",
    "artifact_concentration",
    "artifact_patches",
    "artifact_share",
    "hot_background",
    "spike_share",
    "token_norms",
]

MADS = 6.0
"""A patch is an outlier if its norm lies this many median absolute deviations above the median."""


@torch.no_grad()
def token_norms(
    model: nn.Module, inputs: dict[str, Any], layout: TokenLayout
) -> Float[Tensor, "batch height width"]:
    """Return the norm of every patch token's last hidden state.

    Parameters
    ----------
    model : gives hidden states itself, or holds a ``backbone`` that does.
    inputs : its keyword arguments.
    layout : of its tokens.

    Raises
    ------
    InputError
        If the model gives no hidden states, or their number of tokens is not the layout's.
    """
    inside = getattr(model, "backbone", None)
    model = inside if isinstance(inside, nn.Module) else model
    try:
        with hooks_given_back(model):
            output = model(**inputs, output_hidden_states=True)
    except TypeError as error:
        raise InputError(f"{type(model).__name__} gives no hidden states: {error}") from None
    for part in (output, getattr(output, "vision_model_output", None)):
        states = getattr(part, "hidden_states", None)
        states = getattr(part, "encoder_hidden_states", None) if states is None else states
        if states and states[-1].dim() == 3 and states[-1].shape[1] == layout.num_tokens:
            if layout.grid is None:
                raise InputError("artifact tokens are patches: this stream has no grid")
            return states[-1][:, layout.patch_slice].norm(dim=-1).unflatten(1, layout.grid)
    raise InputError(f"{type(model).__name__} gave no hidden states of {layout.num_tokens} tokens")


def artifact_patches(norms: Float[Tensor, "batch height width"]) -> Bool[Tensor, "batch height width"]:
    r"""Return the patches whose norm is an outlier of their picture, by :data:`MADS`.

    .. math:: n_p > m + 6\,\mathrm{median}_q\,|n_q - m|, \qquad m = \mathrm{median}_q\,n_q

    Trained vision transformers keep notes for the whole picture in a few background tokens, whose norm
    is far above the others [1]_. The rule is per picture, so it needs no threshold of the model; of norms
    with a normal distribution it takes about one in 40,000.

    References
    ----------
    .. [1] Darcet et al., "Vision Transformers Need Registers", ICLR 2024, arXiv:2309.16588. There one
       threshold per model is read off a histogram of all tokens.
    """
    flat = norms.flatten(1)
    middle = flat.median(dim=1, keepdim=True).values
    deviation = (flat - middle).abs().median(dim=1, keepdim=True).values
    return ((flat - middle) > MADS * deviation.clamp(min=1e-9)).reshape(norms.shape)


def artifact_share(
    maps: Float[Tensor, "batch height width"], patches: Bool[Tensor, "batch height width"]
) -> Float[Tensor, "batch"]:
    """Return the share of the map's mass on artifact patches; a constant map gets their area.

    Raises
    ------
    InputError
        If maps and patches differ in shape.
    """
    if maps.shape != patches.shape:
        raise InputError(f"maps of {list(maps.shape)} came with patches of {list(patches.shape)}")
    positive = maps.clamp(min=0)
    total = positive.sum(dim=(-2, -1))
    return (positive * patches).sum(dim=(-2, -1)) / total.where(total > 0, torch.ones_like(total))


def artifact_concentration(
    maps: Float[Tensor, "batch height width"], patches: Bool[Tensor, "batch height width"]
) -> Float[Tensor, "batch"]:
    """Return the share of mass on artifact patches in multiples of their area; NaN without any."""
    area = patches.float().mean(dim=(-2, -1))
    return torch.where(area > 0, artifact_share(maps, patches) / area, float("nan"))


def spike_share(
    maps: Float[Tensor, "batch height width"], *, factor: float = 4.0, lift: float = 3.0
) -> Float[Tensor, "batch"]:
    """Return the share of mass on lone patches: far above the even share and above their surroundings.

    A thing in a picture covers neighbouring patches; a patch that stands out alone is most often a token
    that the model uses for itself. Needs neither truth nor hidden states, so it serves for photographs.

    Parameters
    ----------
    maps : one map per item.
    factor : how far above the second highest of the eight patches around it.
    lift : how far above the even share.

    Notes
    -----
    A constant map wins: it has 0. A thing as small as one or two patches is taken for a spike.
    """
    positive = maps.clamp(min=0)
    total = positive.sum(dim=(-2, -1), keepdim=True)
    share = positive / total.where(total > 0, torch.ones_like(total))
    height, width = maps.shape[1:]
    padded = torch.nn.functional.pad(share, (1, 1, 1, 1))
    around = torch.stack(
        [
            padded[:, row : row + height, column : column + width]
            for row in range(3)
            for column in range(3)
            if (row, column) != (1, 1)
        ]
    )
    alone = share >= factor * around.topk(2, dim=0).values[1]
    spikes = alone & (share * height * width >= lift)
    return (share * spikes).sum(dim=(-2, -1))


def hot_background(
    maps: Float[Tensor, "batch height width"],
    masks: Float[Tensor, "batch height width"],
    *,
    lift: float = 3.0,
) -> Float[Tensor, "batch"]:
    """Return the share of mass on patches that stand out although they show nothing at all.

    Parameters
    ----------
    maps : one map per item.
    masks : the fraction of every patch that any thing covers.
    lift : a patch stands out from this multiple of the even share on.

    Notes
    -----
    Needs the truth. A constant map wins: nothing in it stands out.
    """
    positive = maps.clamp(min=0)
    total = positive.sum(dim=(-2, -1), keepdim=True)
    share = positive / total.where(total > 0, torch.ones_like(total))
    stands_out = (share * maps[0].numel() >= lift) & (masks == 0)
    return (share * stands_out).sum(dim=(-2, -1))
