"""Request and Answer: what a method is asked, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jaxtyping import Float
from torch import Tensor

from attnlib.errors import InputError, LayoutError, NeedsError
from attnlib.layout import TokenLayout
from attnlib.methods.card import NEEDS
from attnlib.methods.memory import demand
from attnlib.methods.queries import Starts, find_starts
from attnlib.record import AttentionRecord, LayerAttention

__all__ = ["POOLER_ROW", "Answer", "Request", "one_row"]

ALL_MATRICES = 8
POOLER_ROW = "the pooler's own row"


@dataclass(eq=False)
class Answer:
    """What a method found; ``explain`` makes a Relevance of it.

    Parameters
    ----------
    scores : [batch, key], or [batch, query, key] when every query was asked for.
    identity : part of the scores that stands there because the method starts from the query itself.
    query : the rows that were used, in words; None = as asked.
    layout : of the key axis; None = the layout of the record's stream.
    seen : True for real tokens; None = as the record says.
    notes : sentences a reader of the map must know.
    options : choices the method made itself, to be stored beside those of the caller.
    """

    scores: Tensor
    identity: Tensor | None = None
    query: str | None = None
    layout: TokenLayout | None = None
    seen: Tensor | None = None
    notes: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Request:
    """What a method is asked: a record, a query, a choice of layers.

    Parameters
    ----------
    record : the attention calls.
    query : as given to ``explain``.
    layers : as given to ``explain``: indices within the stream, None = the method's default.
    method : name of the method, for messages.
    max_memory : bytes that whole matrices may take; None = what is free.
    """

    record: AttentionRecord
    query: Any = None
    layers: int | Sequence[int] | None = None
    method: str = "given"
    max_memory: int | None = None

    @cached_property
    def stream(self) -> str:
        """The one stream of the record."""
        streams = self.record.streams
        if len(streams) != 1:
            raise LayoutError(
                f"{self.method}: this record holds the streams {', '.join(streams)}: "
                "select one with record.select(stream=...)"
            )
        return streams[0]

    @cached_property
    def pool(self) -> LayerAttention | None:
        """The call in which a learned query reads the tokens, if the stream ends with one."""
        last = self.record.layers[-1]
        return last if last.kind == "pool" else None

    @cached_property
    def class_attention(self) -> tuple[LayerAttention, ...]:
        """The calls, first one first, in which a class token that joins behind the patch layers is made.

        Its row reads itself and all patches, which stay as they are (CaiT, VOLO).
        """
        patches = [layer for layer in self.record.layers if layer.kind == "self"]
        found: list[LayerAttention] = []
        for layer in reversed(self.record.layers):
            known = layer.key_layout
            if layer.kind != "pool" or not patches or known is None or known.prefix_tokens != ("class",):
                break
            if layer.num_queries != 1 or layer.num_keys != patches[-1].num_queries + 1:
                break
            found.insert(0, layer)
        return tuple(found)

    @property
    def reads_pool(self) -> bool:
        """Whether the start is the row of the pooler, or of a late class token: no other was asked for."""
        words = ("readout", *(("class", "cls", "[cls]") if self.class_attention else ()))
        asked = self.query.lower() if isinstance(self.query, str) else self.query
        return self.pool is not None and (asked is None or (isinstance(asked, str) and asked in words))

    @property
    def left_out(self) -> tuple[str, ...]:
        """What a product of the self-attention layers leaves out, for a reader of the map."""
        if not any(layer.kind == "cross" for layer in self.record.layers):
            return ()
        return (
            f"what the {self.stream} reads from another stream takes no part; generic_relevance on the whole "
            "record follows it",
        )

    @property
    def pool_words(self) -> str:
        """What the row of :attr:`pool` is called."""
        return "class" if self.class_attention else POOLER_ROW

    def refuse_class_attention(self) -> None:
        """Refuse the row of a class token that joins behind the patch layers.

        Raises
        ------
        InputError
            Naming what can be asked instead.
        """
        if self.reads_pool and self.class_attention:
            raise InputError(
                f"{self.method}: the class token joins the patches in {self.class_attention[0].name}, "
                f"behind the layers that {self.method} goes through: ask for a patch, query='mean', or take "
                "rollout, gradient_rollout or generic_relevance, which carry its row on"
            )

    def stack(
        self, *, start_layer: int = 0, default: int | Sequence[int] | None = None, apart: bool = False
    ) -> tuple[LayerAttention, ...]:
        """Return the self-attention calls to go through, first layer first.

        Parameters
        ----------
        start_layer : leave out the layers below this one; negative counts from the end.
        default : layers to use when the caller named none; None = all.
        apart : each layer is looked at on its own, so that what stands between them does not matter.

        Raises
        ------
        NeedsError
            If the layers are gone through one after the other, and something between them passes information
            between tokens without weights.
        """
        _ = self.stream
        wanted = self.layers if self.layers is not None else default
        own = self.record.select(kind="self")
        chosen = own.select(layers=wanted).layers
        if start_layer:
            highest = max(layer.index for layer in own.layers)
            first = start_layer if start_layer >= 0 else highest + 1 + start_layer
            if not 0 <= first <= highest:
                raise InputError(f"{self.method}: start_layer={start_layer}, but the last layer is {highest}")
            chosen = tuple(layer for layer in chosen if layer.index >= first)
            if not chosen:
                raise InputError(
                    f"{self.method}: start_layer={start_layer} leaves none of the layers {wanted}"
                )
        if default is None and not apart:
            self.refuse_gaps(chosen, start_layer=start_layer)
        return chosen

    def refuse_gaps(self, layers: Sequence[LayerAttention], *, start_layer: int = 0) -> None:
        """Refuse to go through layers, of one stream or several, between which tokens mix without weights.

        Parameters
        ----------
        layers : the calls that will be gone through.
        start_layer : as for :meth:`stack`.

        Raises
        ------
        NeedsError
            If there is such a place below, between or above them, as far as the caller named no layers.
        """
        for stream in dict.fromkeys(layer.stream for layer in layers):
            indices = [layer.index for layer in layers if layer.stream == stream]
            low = -1.0 if self.layers is None and not start_layer else float(min(indices))
            high = max(indices) + (1 if self.layers is None else 0)
            across = [
                gap for gap in self.record.gaps if gap.stream in ("", stream) and low <= gap.place <= high
            ]
            if across:
                more = f" (and {len(across) - 1} more like it)" if len(across) > 1 else ""
                raise NeedsError(
                    f"the method {self.method!r} goes through all layers, but {across[0]}{more}: what passes "
                    "there would be left out. The method 'raw' shows single attention layers, 'legrad' "
                    "averages them; layers=[...] takes those between two such places"
                )

    @cached_property
    def layout(self) -> TokenLayout:
        """Layout of the stream."""
        return self.record.layout

    @cached_property
    def seen(self) -> Tensor | None:
        """True for real tokens, False for padding; None if all are real."""
        return self.record.seen.get(self.stream)

    def starts(self, layer: LayerAttention, layout: TokenLayout | None = None) -> Starts:
        """Return the start vectors for the query rows of ``layer``.

        Parameters
        ----------
        layer : whose query rows are meant.
        layout : of its query axis; None = the layer's own, or the stream's.
        """
        probe = layer.weights(**one_row(layer))
        if isinstance(self.query, str) and self.query == "all":
            size = layer.num_queries
            self.demand(
                ALL_MATRICES * layer.batch_size * size * size * probe.element_size(),
                f"query='all' needs matrices of {size}x{size}",
                "name a few tokens, or use a smaller input",
            )
        known = layout or layer.query_layout or self.layout
        if known.num_tokens != layer.num_queries:  # the layout is that of the keys
            known = TokenLayout(None, tokens=[f"query {i}" for i in range(layer.num_queries)])
        seen = self.seen if self.seen is not None and self.seen.shape[-1] == layer.num_queries else None
        return find_starts(
            self.query,
            known,
            batch_size=layer.batch_size,
            num_queries=layer.num_queries,
            dtype=probe.dtype,
            device=probe.device,
            seen=seen,
        )

    def even_weights(
        self, layer: LayerAttention
    ) -> tuple[Float[Tensor, "batch query"], Float[Tensor, "batch key"]]:
        """Return weights that average over the query rows, and over the keys, of a layer: 0 for padding."""
        probe = layer.weights(**one_row(layer))

        def even(size: int, seen: Tensor | None) -> Tensor:
            real = probe.new_ones(layer.batch_size, size)
            real = seen.to(real) if seen is not None and seen.shape == real.shape else real
            return real / real.sum(dim=-1, keepdim=True).clamp(min=1)

        rows = even(layer.num_queries, None if layer.kind == "pool" else self.seen)
        return rows, even(layer.num_keys, self.seen)

    def refuse_sizes(self, layers: Sequence[LayerAttention]) -> None:
        """Refuse layers whose maps cannot be averaged, because they have different sizes.

        Raises
        ------
        InputError
            Naming the sizes.
        """
        sizes = {(layer.num_queries, layer.num_keys) for layer in layers}
        if len(sizes) > 1:
            raise InputError(
                f"{self.method}: the layers {self.layers} have different sizes {sorted(sizes)}; name one"
            )

    def demand(self, needed: int, what: str, cheaper: str) -> None:
        """Refuse what would take more memory than is allowed or free.

        Parameters
        ----------
        needed : bytes.
        what : for what, in words.
        cheaper : what to do instead.

        Raises
        ------
        BudgetError
            Before anything is taken.
        """
        device = self.record.layers[0].weights(**one_row(self.record.layers[0])).device
        demand(needed, f"{self.method}: {what}", cheaper, max_memory=self.max_memory, device=device)

    def require(self, needs: Sequence[str]) -> None:
        """Check that the record holds what a method needs.

        Raises
        ------
        NeedsError
            Naming the argument of ``capture`` that would provide it.
        """
        for need in needs:
            missing = self.lacks(need)
            if missing:
                raise NeedsError(
                    f"the method {self.method!r} needs {need}, and {missing}: use {NEEDS[need]}"
                    + (" (or from_weights(..., gradients=...))" if need == "gradients" else "")
                )

    def lacks(self, need: str) -> str:
        """Say why the record cannot serve a need; empty if it can."""
        if need == "model":
            return "" if self.record.on_rerun is not None else "this record has no model to run again"
        for layer in self.record.layers:
            heads, rows = _first(layer.heads), _first(layer.queries)
            try:
                if need == "gradients":
                    layer.gradients(heads=heads, queries=rows)
                elif need == "values":
                    layer.values(heads=heads)
                elif layer.internals is None and layer.kind == "self":
                    return f"{layer.name} kept none"
            except NeedsError:
                return f"{layer.name} kept none"
        return ""


def one_row(layer: LayerAttention) -> dict[str, list[int]]:
    """Return what ``weights`` is asked for one row of one head that was kept: to see its type and device."""
    return {"heads": _first(layer.heads), "queries": _first(layer.queries)}


def _first(kept: tuple[int, ...] | None) -> list[int]:
    return [0] if kept is None else [kept[0]]
