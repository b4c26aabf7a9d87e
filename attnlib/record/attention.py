"""AttentionRecord: every attention call of a forward pass, as dead data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import functional

from attnlib.errors import InputError, LayoutError, NeedsError
from attnlib.layout import TokenLayout
from attnlib.picture import View
from attnlib.record.gaps import Gap
from attnlib.record.indices import Indices, as_tensor, whole_numbers
from attnlib.record.joining import join_steps
from attnlib.record.layer import LayerAttention
from attnlib.record.provenance import Provenance
from attnlib.record.sources import GivenAttention

if TYPE_CHECKING:
    import pandas

    from attnlib.record.streams import GivenCall

__all__ = ["AttentionRecord"]


@dataclass(eq=False, repr=False)
class AttentionRecord:
    """All attention calls of a forward pass, in call order.

    Parameters
    ----------
    layers : the calls.
    layouts : stream name -> layout of its tokens, for the streams whose layout is known.
    output : what the model returned.
    provenance : where this came from.
    views : one per item: which part of each picture the model saw.
    seen : stream name -> True for real tokens, False for padding, [batch, key].
    layout_problem : why the layout is not known, for the error message.
    readout_assumed : streams of which it could not be followed what the head reads.
    on_differentiate, on_rerun : what acts on the model; put here by the capture.
    layer_scores : the gradients of each layer are those of that layer's own score, not of a final one.
    gaps : modules that pass information between tokens without weights over them, such as the state space
        layers of a hybrid: methods that go through all layers refuse to cross them.
    """

    layers: tuple[LayerAttention, ...] = ()
    layouts: Mapping[str, TokenLayout] = field(default_factory=dict)
    output: Any = None
    provenance: Provenance = field(default_factory=Provenance)
    views: tuple[View, ...] = ()
    seen: Mapping[str, Tensor] = field(default_factory=dict)
    layout_problem: str | None = None
    readout_assumed: frozenset[str] = frozenset()
    on_differentiate: Callable[[AttentionRecord, Any], None] | None = None
    on_rerun: Callable[..., Any] | None = None
    layer_scores: bool = False
    gaps: tuple[Gap, ...] = ()

    @classmethod
    def from_weights(
        cls,
        weights: Iterable[Any],
        *,
        gradients: Iterable[Any] | None = None,
        layout: TokenLayout | None = None,
    ) -> AttentionRecord:
        """Wrap attention matrices that exist already, unchanged.

        Parameters
        ----------
        weights : one tensor (or array) [batch, head, query, key] per layer, first layer first.
        gradients : d score / d weights, the same shapes.
        layout : which token is which; a text layout with numbered tokens if omitted.

        Raises
        ------
        InputError
            If there is no layer, or a tensor has another shape than the contract's.
        """
        if not isinstance(weights, Iterable):
            raise InputError(f"weights are one tensor per layer, got {type(weights).__name__}")
        stack = [as_tensor(one, f"weights of layer {i}") for i, one in enumerate(weights)]
        given = [None] * len(stack) if gradients is None else list(gradients)
        slopes = [one if one is None else as_tensor(one, "gradients") for one in given]
        if not stack:
            raise InputError(
                "from_weights got no layer: give one [batch, head, query, key] per layer. "
                "output_attentions=True returns an empty tuple under fused attention; capture(model, inputs) "
                "needs no such switch"
            )
        if len(slopes) != len(stack):
            raise InputError(f"{len(stack)} layers of weights but {len(slopes)} of gradients")
        layers = []
        for index, (one, slope) in enumerate(zip(stack, slopes, strict=True)):
            if one.dim() != 4 or not one.is_floating_point():
                raise InputError(
                    f"weights of layer {index} must be floating [batch, head, query, key], "
                    f"got {one.dtype} {list(one.shape)}"
                )
            if one.shape[0] != stack[0].shape[0]:
                raise InputError(
                    f"weights of layer {index} are for a batch of {one.shape[0]}, those of layer 0 for "
                    f"{stack[0].shape[0]}"
                )
            if slope is not None and slope.shape != one.shape:
                raise InputError(
                    f"gradients of layer {index} have shape {list(slope.shape)}, "
                    f"its weights {list(one.shape)}"
                )
            kind = "self" if one.shape[2] == one.shape[3] else "cross"
            source = GivenAttention(one, slope)
            layers.append(
                LayerAttention(f"layer {index}", index, kind, source, key_layout=layout, query_layout=layout)
            )
        if layout is None:
            layout = TokenLayout(None, tokens=[f"token {i}" for i in range(stack[0].shape[-1])])
            layers = [replace(one, key_layout=layout, query_layout=layout) for one in layers]
        elif layout.num_tokens != stack[0].shape[-1]:
            raise InputError(
                f"the layout has {layout.num_tokens} tokens, the weights {stack[0].shape[-1]} keys"
            )
        return cls(tuple(layers), {"tokens": layout})

    @classmethod
    def from_streams(
        cls, calls: Sequence[GivenCall], *, layouts: Mapping[str, TokenLayout] | None = None
    ) -> AttentionRecord:
        """Wrap attention matrices of several streams: encoder and decoder, text and image.

        Parameters
        ----------
        calls : in the order in which the model makes them. Cross-attention calls that follow one another
            directly, in different streams, are taken to read the same states (co-attention).
        layouts : stream name -> layout; numbered tokens for streams that are left out.

        Raises
        ------
        InputError
            If there is no call, or the sizes within a stream disagree.
        """
        from attnlib.record.streams import layers_of_streams

        return cls(*layers_of_streams(calls, layouts or {}))

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams, in order of appearance."""
        return tuple(dict.fromkeys(layer.stream for layer in self.layers))

    @property
    def layout(self) -> TokenLayout:
        """The layout of the one stream in this record.

        Raises
        ------
        LayoutError
            If several streams are present and none was selected, or the layout is not known.
        """
        if len(self.streams) > 1:
            raise LayoutError(
                f"this record holds the streams {', '.join(self.streams)}: "
                "select one with record.select(stream=...)"
            )
        name = self.streams[0] if self.streams else "tokens"
        if name not in self.layouts:
            raise LayoutError(
                self.layout_problem
                or f"the layout of the stream {name!r} is not known: give one with "
                "record.with_layout(TokenLayout(...))"
            )
        return self.layouts[name]

    def with_layout(self, layout: TokenLayout) -> AttentionRecord:
        """Return the same record with a layout given by hand for its one stream."""
        if len(self.streams) != 1:
            raise LayoutError(
                f"select one stream of {', '.join(self.streams)} first"
                if self.layers
                else "this record is empty"
            )
        name = self.streams[0]
        for layer in self.layers:
            if layer.kind == "self" and layer.num_keys != layout.num_tokens:
                raise InputError(
                    f"{layer.name} has {layer.num_keys} keys, the layout {layout.num_tokens} tokens"
                )
        layers = tuple(_with_layout(one, layout) for one in self.layers)
        return replace(self, layers=layers, layouts={**self.layouts, name: layout})

    def select(
        self,
        *,
        layers: Indices | None = None,
        kind: str | None = None,
        stream: str | None = None,
        step: int | None = None,
    ) -> AttentionRecord:
        """Keep some of the calls.

        Parameters
        ----------
        layers : values of ``LayerAttention.index``; negative counts from the end of each stream.
        kind : "self", "cross" or "pool".
        stream : "vision", "text", "encoder", "decoder" ...
        step : generation step; 0 is the prompt.

        Raises
        ------
        InputError
            If nothing is selected, or a layer does not exist.
        """
        kept = [
            layer
            for layer in self.layers
            if kind in (None, layer.kind) and stream in (None, layer.stream) and step in (None, layer.step)
        ]
        if not kept:
            have = sorted({(layer.stream, layer.kind) for layer in self.layers})
            asked = {"kind": kind, "stream": stream, "step": step}
            told = ", ".join(f"{name}={value!r}" for name, value in asked.items() if value is not None)
            raise InputError(
                f"no attention call has {told}; this record holds " + ", ".join(f"{s}/{k}" for s, k in have)
            )
        if layers is not None:
            kept = _by_index(kept, layers)
        return replace(self, layers=tuple(kept))

    def over_picture(self) -> AttentionRecord:
        """Return the stream that holds the picture; the record itself if there is one stream only.

        That is "vision", or the first stream with a patch grid (the encoder of a captioner).

        Raises
        ------
        LayoutError
            If no stream has a patch grid.
        """
        if len(self.streams) == 1:
            return self
        grids = [name for name in self.streams if (one := self.layouts.get(name)) is not None and one.grid]
        if "vision" not in self.streams and not grids:
            raise LayoutError(f"none of the streams {', '.join(self.streams)} has a patch grid: select one")
        return self.select(stream="vision" if "vision" in self.streams else grids[0])

    def to_frame(self) -> pandas.DataFrame:
        """Return one row per attention call: who made it, between how many tokens, what is kept of it."""
        from pandas import DataFrame

        rows = [
            {
                "stream": layer.stream,
                "index": layer.index,
                "kind": layer.kind,
                "module": layer.name,
                "heads": layer.num_heads,
                "queries": layer.num_queries,
                "keys": layer.num_keys,
                "seen as": layer.source.kind_of_source,
                "kept MB": round(layer.source.nbytes / 1e6, 2),
                "notes": "; ".join(layer.notes),
            }
            for layer in self.layers
        ]
        return DataFrame(rows)

    def joined(self) -> AttentionRecord:
        """Join the steps of a generation: one lower-triangular matrix per layer, one row per token.

        Raises
        ------
        InputError
            If the record holds no steps, or those of a layer do not continue one another.
        """
        if not any(layer.step is not None for layer in self.layers):
            raise InputError(
                "this record holds no generation steps to join: capture model.generate(...) with its cache "
                "(use_cache=True); without one, each forward pass has all rows of its own"
            )
        by_layer: dict[tuple[str, int], list[LayerAttention]] = {}
        for layer in self.layers:
            by_layer.setdefault((layer.stream, layer.index), []).append(layer)
        joined = [join_steps(group) for group in by_layer.values()]
        layouts = {one.stream: one.query_layout for one in joined if one.query_layout is not None}
        sizes = {one.stream: one.num_queries for one in joined if one.kind == "self"}
        seen = {  # what was generated is real
            name: functional.pad(mask, (0, max(0, sizes.get(name, 0) - mask.shape[-1])), value=True)
            for name, mask in self.seen.items()
        }
        return replace(self, layers=tuple(joined), layouts={**self.layouts, **layouts}, seen=seen)

    def differentiate(self, score: Tensor | Mapping[str, Sequence[Tensor]]) -> AttentionRecord:
        """Run one backward pass from a scalar, so that ``LayerAttention.gradients`` works.

        Parameters
        ----------
        score : what to differentiate, summed if it has one value per item; or stream -> one per layer.

        Raises
        ------
        NeedsError
            If the record was not captured with ``gradients=True``.
        """
        if self.on_differentiate is None:
            raise NeedsError("this record kept no graph: capture it with capturing(model, gradients=True)")
        self.on_differentiate(self, score)
        return self

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        kinds = ", ".join(f"{s} {k}" for s, k in dict.fromkeys((x.stream, x.kind) for x in self.layers))
        return f"AttentionRecord({len(self.layers)} calls: {kinds or 'none'}; {self.provenance.model})"


def _with_layout(layer: LayerAttention, layout: TokenLayout) -> LayerAttention:
    """Give a layer another layout, on the axes that run over the tokens of its stream."""
    rows, columns = (size == layout.num_tokens for size in (layer.num_queries, layer.num_keys))
    return replace(
        layer,
        query_layout=layout if rows and layer.kind != "pool" else layer.query_layout,
        key_layout=layout if columns and layer.key_stream in (None, layer.stream) else layer.key_layout,
    )


def _by_index(kept: list[LayerAttention], layers: Indices) -> list[LayerAttention]:
    wanted = whole_numbers(layers, "layers")
    chosen: list[LayerAttention] = []
    for stream in dict.fromkeys(layer.stream for layer in kept):
        own = [layer for layer in kept if layer.stream == stream]
        by_index: dict[int, list[LayerAttention]] = {}
        for layer in own:  # several where a generation has several steps
            by_index.setdefault(layer.index, []).append(layer)
        highest = max(by_index)
        for i in wanted:
            index = i if i >= 0 else highest + 1 + i
            if index not in by_index:
                raise InputError(f"no layer {i} in the {stream} stream; it has {sorted(by_index)}")
            chosen.extend(by_index[index])
    order = {id(layer): place for place, layer in enumerate(kept)}
    return sorted({id(x): x for x in chosen}.values(), key=lambda layer: order[id(layer)])
