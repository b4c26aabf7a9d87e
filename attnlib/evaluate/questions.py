"""What a trained model is asked and how its answer is read: labels, a caption, the next word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.errors import InputError

if TYPE_CHECKING:
    from attnlib.evaluate.scenes import Scene
    from attnlib.models import LoadedModel
    from attnlib.record import AttentionRecord

__all__ = ["LabelQuestion", "PairQuestion", "Question", "WordQuestion", "question_for"]

_CROSS = ("raw",)
_WHOLE = ("generic_relevance",)


@runtime_checkable
class Question(Protocol):
    """How one kind of model is asked about a class, and how its answer is read."""

    @property
    def says(self) -> bool:
        """Whether the model says yes or no at all."""
        ...

    @property
    def stream(self) -> str | None:
        """The stream of the picture, where there are several."""
        ...

    def inputs(self, targets: Sequence[str], begun: Sequence[str], pixels: Tensor) -> dict[str, Tensor]:
        """Return the model's inputs."""
        ...

    def score(self, output: Any, targets: Sequence[str], begun: Sequence[str]) -> Float[Tensor, "batch"]:
        """Return the number of each item that is differentiated."""
        ...

    def logit(self, output: Any, targets: Sequence[str], begun: Sequence[str]) -> Float[Tensor, "batch"]:
        """Return the number of each item that is watched while patches are hidden; above 0: said."""
        ...

    def chance(self, logits: Tensor) -> Tensor:
        """Return those numbers on a scale of 0 to 1."""
        ...

    def asked(
        self, record: AttentionRecord, method: str, begun: Sequence[str]
    ) -> tuple[AttentionRecord, dict[str, Any]]:
        """Return the part of a record that a method reads, and the query."""
        ...


@dataclass(frozen=True)
class LabelQuestion:
    """A classifier with several labels: the label's own logit, and its sigmoid."""

    loaded: LoadedModel
    says: bool = True
    stream: str | None = None

    def inputs(self, targets: Sequence[str], begun: Sequence[str], pixels: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the pixels."""
        return {"pixel_values": pixels}

    def score(self, output: Any, targets: Sequence[str], begun: Sequence[str]) -> Tensor:  # noqa: ARG002
        """Return the label's logit."""
        index = [self.loaded.labels.index(target) for target in targets]
        return output.logits.gather(1, torch.tensor(index)[:, None])[:, 0]

    def logit(self, output: Any, targets: Sequence[str], begun: Sequence[str]) -> Tensor:
        """Return the label's logit."""
        return self.score(output, targets, begun)

    def chance(self, logits: Tensor) -> Tensor:
        """Return the sigmoid."""
        return logits.sigmoid()

    def asked(
        self,
        record: AttentionRecord,
        method: str,  # noqa: ARG002
        begun: Sequence[str],  # noqa: ARG002
    ) -> tuple[AttentionRecord, dict[str, Any]]:
        """Return the record; the query is what the head reads."""
        return record, {}


@dataclass(frozen=True)
class PairQuestion:
    """Pictures and captions: the scaled similarity to "a CLASS"; on a scale of 0 to 1 their cosine."""

    loaded: LoadedModel
    says: bool = False
    stream: str | None = "vision"

    def inputs(self, targets: Sequence[str], begun: Sequence[str], pixels: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """Return pixels and one caption per picture."""
        words = _tokenizer(self.loaded)([f"a {one}" for one in targets], padding=True, return_tensors="pt")
        return {
            "pixel_values": pixels,
            "input_ids": words["input_ids"],
            "attention_mask": words["attention_mask"],
        }

    def score(self, output: Any, targets: Sequence[str], begun: Sequence[str]) -> Tensor:  # noqa: ARG002
        """Return the similarity of each picture to its own caption."""
        return output.logits_per_image.gather(1, torch.arange(len(targets))[:, None])[:, 0]

    def logit(self, output: Any, targets: Sequence[str], begun: Sequence[str]) -> Tensor:
        """Return the same similarity."""
        return self.score(output, targets, begun)

    def chance(self, logits: Tensor) -> Tensor:
        """Return the cosine."""
        return logits / self.loaded.model.logit_scale.detach().exp()  # type: ignore[operator]

    def asked(
        self,
        record: AttentionRecord,
        method: str,  # noqa: ARG002
        begun: Sequence[str],  # noqa: ARG002
    ) -> tuple[AttentionRecord, dict[str, Any]]:
        """Return the picture's stream; the query is what the head reads."""
        return record.select(stream=self.stream), {}


@dataclass(frozen=True)
class WordQuestion:
    """A model that writes: the class is the next word of a caption that is begun with the true words.

    The score is the word's logit; watched is the logit of its probability (log p / (1 - p)).
    """

    loaded: LoadedModel
    says: bool = True
    stream: str | None = "encoder"

    def inputs(self, targets: Sequence[str], begun: Sequence[str], pixels: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """Return pixels and the words so far; what pads them at the end is never read by them."""
        rows = self._rows(begun)
        ids, real = (
            torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in part], batch_first=True)
            for part in (rows, [[1] * len(row) for row in rows])
        )
        return {"pixel_values": pixels, "decoder_input_ids": ids, "decoder_attention_mask": real}

    def score(self, output: Any, targets: Sequence[str], begun: Sequence[str]) -> Tensor:
        """Return the word's logit after the words so far."""
        return self._next(output, begun).gather(1, self._numbers(targets)[:, None])[:, 0]

    def logit(self, output: Any, targets: Sequence[str], begun: Sequence[str]) -> Tensor:
        """Return log p / (1 - p) of the word."""
        told, numbers = self._next(output, begun), self._numbers(targets)[:, None]
        others = told.scatter(1, numbers, float("-inf")).logsumexp(dim=1)
        return told.gather(1, numbers)[:, 0] - others

    def chance(self, logits: Tensor) -> Tensor:
        """Return the word's probability."""
        return logits.sigmoid()

    def asked(
        self, record: AttentionRecord, method: str, begun: Sequence[str]
    ) -> tuple[AttentionRecord, dict[str, Any]]:
        """Return what a method reads of an encoder and a decoder.

        The encoder-decoder rule reads all calls and raw attention the cross-attention, both from the
        word before the one asked for. The other methods know one stream: they read the encoder, those
        of attention for the mean of its patches, because the decoder reads them all.
        """
        from attnlib.methods import METHODS

        last = torch.tensor([len(row) - 1 for row in self._rows(begun)])
        if method in _WHOLE:
            return record, {"query": last}
        if method in _CROSS:
            return record.select(stream="decoder", kind="cross"), {"query": last}
        encoder = record.select(stream=self.stream)
        return encoder, {"query": "mean"} if METHODS[method].takes_query else {}

    def _rows(self, begun: Sequence[str]) -> list[list[int]]:
        tokenizer = _tokenizer(self.loaded)
        first = int(tokenizer.bos_token_id)
        return [[first, *tokenizer(text, add_special_tokens=False)["input_ids"]] for text in begun]

    def _numbers(self, targets: Sequence[str]) -> Tensor:
        return torch.tensor(_tokenizer(self.loaded).convert_tokens_to_ids(list(targets)))

    def _next(self, output: Any, begun: Sequence[str]) -> Float[Tensor, "batch word"]:
        last = torch.tensor([len(row) - 1 for row in self._rows(begun)])
        logits = output.logits
        return logits.gather(1, last[:, None, None].expand(-1, 1, logits.shape[-1]))[:, 0]


def question_for(loaded: LoadedModel) -> Question:
    """Return how a model trained on scenes is asked about a class.

    Raises
    ------
    InputError
        If it neither has the classes as labels, nor compares captions, nor writes them.
    """
    from attnlib.evaluate.scenes import CLASSES

    if hasattr(loaded.model, "logit_scale"):
        return PairQuestion(loaded)
    if getattr(loaded.model.config, "is_encoder_decoder", False):
        return WordQuestion(loaded)
    if loaded.labels is None or not set(CLASSES) <= set(loaded.labels):
        raise InputError(
            f"{loaded.name} was not trained on scenes: it has neither their classes as labels nor captions"
        )
    return LabelQuestion(loaded)


def words_before(scene: Scene, target: str) -> str:
    """Return the words of a scene's caption before the name of a class."""
    words = scene.caption.split()
    return " ".join(words[: words.index(target)])


def _tokenizer(loaded: LoadedModel) -> Any:
    from attnlib.models.said import tokenizer_of

    return tokenizer_of(loaded.processor)
