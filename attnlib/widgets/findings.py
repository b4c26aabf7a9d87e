"""What an explorer has found out about one input: to show, to save, to write about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from attnlib.errors import AttnlibError
from attnlib.hooks.blocks import block_of
from attnlib.interpretation import Interpretation
from attnlib.models import LoadedModel
from attnlib.record import AttentionRecord, Relevance
from attnlib.regions import Regions
from attnlib.widgets.image_source import image_layers, readout_row

__all__ = ["Findings", "artifact_shares", "say"]


@dataclass(eq=False)
class Findings:
    """What there is to show.

    Parameters
    ----------
    record : the captured attention.
    relevance : what the method says; None for "attention".
    said : what the model said, in sentences.
    regions : named parts of the picture; None until they are found.
    profile : whose layers and heads the measures belong to; None until there are any.
    interpretation : the written text; None until there is a relevance over patches.
    measures : name of a measure -> its values, [layer, head].
    notes : what could not be done, in words.
    norms : of every token after every block, as the model ran: path of the block -> [batch, token].
    """

    record: AttentionRecord
    relevance: Relevance | None = None
    said: tuple[str, ...] = ()
    regions: Regions | None = None
    profile: Any = None
    interpretation: Interpretation | None = None
    measures: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    norms: Mapping[str, torch.Tensor] = field(default_factory=dict)


def say(found: Findings, loaded: LoadedModel, prepared: Any) -> None:
    """Write down what the model said, or why it cannot be read."""
    try:
        said = loaded.said(found.record.output, views=prepared.views, texts=getattr(prepared, "texts", ()))
        found.said = tuple(said.sentences)
    except AttnlibError as problem:
        found.notes.append(f"what the model said could not be read: {problem}")


def artifact_shares(
    record: AttentionRecord, norms: Mapping[str, torch.Tensor], loaded: LoadedModel | None, inputs: Any
) -> np.ndarray | None:
    """Return the share of every head's read-out map that lies on artifact patches, [layer, head]."""
    from attnlib.evaluate.artifacts import artifact_patches, artifact_share, token_norms

    layers = image_layers(record)
    last, main = layers[-1]
    grid = main.grid
    block = None if loaded is None else block_of(loaded.model, last.name, norms)
    if block is not None and grid is not None and norms[block].shape[1] == main.num_tokens:
        marked = artifact_patches(norms[block][:, main.patch_slice].unflatten(1, grid))
    elif loaded is not None and inputs is not None:
        marked = artifact_patches(token_norms(loaded.model, dict(inputs), main))
    else:
        return None
    rows = [readout_row(layer, layout) for layer, layout in layers]
    shares = [artifact_share(row, marked.expand(len(row), -1, -1)) for row in rows]
    return torch.stack(shares).double().numpy()
