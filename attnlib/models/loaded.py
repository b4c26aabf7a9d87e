"""LoadedModel: a model with all that is needed to feed it and to read what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from attnlib.errors import InputError
from attnlib.layout import TokenLayout
from attnlib.models.naming import name_tokens
from attnlib.models.said import Said, read_output, tokenizer_of
from attnlib.picture import View
from attnlib.record import AttentionRecord

__all__ = ["LoadedModel", "ModelCard", "Prepared", "Preparer"]


@dataclass(frozen=True)
class ModelCard:
    """What a model is and where it comes from.

    Parameters
    ----------
    name : the name that ``load_model`` takes.
    summary : what it is, in one sentence.
    source : where the weights come from.
    licence : licence of the weights.
    extra : the extra of attnlib that brings what it needs; "" = none.
    """

    name: str
    summary: str
    source: str
    licence: str = "not stated"
    extra: str = ""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Model inputs, and which part of each picture they show.

    Parameters
    ----------
    inputs : keyword arguments of the model's forward pass.
    views : one per picture; empty for a model of text.
    texts : the texts that went in, if any.
    layouts : for texts, one layout per item: readable tokens, words of several tokens, what the head
        reads; empty where the layout follows from the shapes.
    seen : for texts, True for real tokens and False for padding, [batch, token].
    notes : what was cut off, in words.
    """

    inputs: Mapping[str, Any]
    views: tuple[View, ...] = ()
    texts: tuple[str, ...] = ()
    layouts: tuple[TokenLayout, ...] = ()
    seen: Tensor | None = None
    notes: tuple[str, ...] = ()


@runtime_checkable
class Preparer(Protocol):
    """Turns pictures or texts into model inputs."""

    def __call__(
        self, sources: Sequence[Any], *, size: int | tuple[int, int] | None, texts: Sequence[str] | None
    ) -> Prepared:
        """Return inputs on the CPU, in float32."""
        ...


@dataclass(eq=False, repr=False)
class LoadedModel:
    """A model, its processor, its labels and its layout.

    Parameters
    ----------
    name : name under which it was loaded.
    model : the torch module, as loaded, in evaluation mode.
    processor : what prepares its inputs: a processor or tokenizer of its library.
    labels : names of its classes by index; empty if it has none.
    card : what it is and where it comes from.
    preparer : function that ``prepare`` calls.
    find_layout : function that finds the layout of a default input when somebody asks for it.
    notes : sentences that a user of this model must know.
    readout_is_known : whether ``layout.readout`` is certain from how the model was built.
    """

    name: str
    model: nn.Module
    processor: Any
    labels: tuple[str, ...]
    card: ModelCard
    preparer: Preparer
    find_layout: Callable[[], TokenLayout | None] = lambda: None
    notes: tuple[str, ...] = field(default=())
    readout_is_known: bool = False

    @cached_property
    def layout(self) -> TokenLayout | None:
        """Which token is which for a default input; None where it is known only after a forward pass."""
        return self.find_layout()

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the weights."""
        return next(p.dtype for p in self.model.parameters() if p.is_floating_point())

    def prepare(
        self, sources: Any, *, size: int | tuple[int, int] | None = None, texts: Sequence[str] | None = None
    ) -> Prepared:
        """Turn pictures or texts into the inputs of the model, on its device.

        Parameters
        ----------
        sources : one picture or text, or a list of them. A picture may be anything that
            :func:`attnlib.load_picture` takes.
        size : pixels of the longer side of the model input, or (height, width); the model's own
            choice if omitted.
        texts : the prompts for a model that compares pictures with texts.

        Raises
        ------
        InputError
            If nothing was given, or the model cannot take this size.
        PictureError
            If a picture cannot be read.
        """
        many = list(sources) if isinstance(sources, (list, tuple)) else [sources]
        if not many:
            raise InputError(f"{self.name}: no picture or text was given")
        prompts = [texts] if isinstance(texts, str) else texts
        prepared = self.preparer(many, size=size, texts=prompts)
        inputs = {name: self._placed(value) for name, value in prepared.inputs.items()}
        return replace(prepared, inputs=inputs)

    def said(self, output: Any, *, views: Sequence[View] = (), texts: Sequence[str] = ()) -> Said:
        """Say in words and numbers what the model answered.

        Parameters
        ----------
        output : what the model's forward pass returned.
        views : ``Prepared.views``: positions are then given in the picture, not in the model input.
        texts : ``Prepared.texts``, for models that compare with or continue texts.
        """
        return read_output(
            output,
            labels=self.labels,
            views=tuple(views),
            texts=tuple(texts),
            tokenizer=tokenizer_of(self.processor),
            config=getattr(self.model, "config", None),
        )

    def name_tokens(self, record: AttentionRecord, prepared: Prepared) -> None:
        """Complete the layouts of a record with labels, words, and what the head is known to read."""
        name_tokens(record, self, prepared)

    def describe(self) -> str:
        """Describe the model in a few lines: what it is, its size, its tokens, its licence."""
        weights = sum(p.numel() for p in self.model.parameters())
        lines = [
            f"{self.name}: {self.card.summary}",
            f"{type(self.model).__name__}, {weights / 1e6:.1f} million weights, {self.dtype}, {self.device}",
            f"tokens: {self._tokens()}",
            f"labels: {len(self.labels)}" if self.labels else "labels: none",
            f"source: {self.card.source}; licence: {self.card.licence}",
        ]
        return "\n".join([*lines, *self.notes])

    def _tokens(self) -> str:
        if self.layout is None:
            return "found at the first capture"
        # which tokens the head reads is left open by default layouts, and found by gradient
        return str(self.layout).replace("head reads: not known", "head reads: found at the first capture")

    def _placed(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.to(self.device, self.dtype) if value.is_floating_point() else value.to(self.device)

    def __repr__(self) -> str:
        return f"LoadedModel({self.name!r}, {type(self.model).__name__}, {self.dtype}, {self.device})"
