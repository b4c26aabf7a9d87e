"""Said: what a model answered, in words and numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.picture import View

__all__ = ["Said", "read_output", "tokenizer_of"]

Scores = tuple[tuple[str, float], ...]

_TOP = 5
_STANDS_OUT = 1.2  # a predicted map whose highest value is below this multiple of its mean has no peak


@dataclass(frozen=True, eq=False)
class Said:
    """What a model answered, one entry per item of the batch.

    Parameters
    ----------
    kind : "labels", "saliency", "similarity", "next token", "masked token" or "shapes".
    sentences : one sentence per item.
    scores : per item (name, number), best first: labels or tokens with probabilities, texts with
        cosine similarities; empty where there are none.
    maps : predicted saliency in the model input, [batch, height, width]; None for other kinds.
    points : per item (x, y) of the most salient place, in pixels of the picture.
    notes : what a reader must know to read the numbers.
    """

    kind: str
    sentences: tuple[str, ...]
    scores: tuple[Scores, ...] = ()
    maps: Tensor | None = None
    points: tuple[tuple[float, float], ...] = ()
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return "\n".join([*self.sentences, *self.notes])

    def __repr__(self) -> str:
        return f"Said({self.kind!r}, {list(self.sentences)})"


@dataclass(frozen=True, eq=False)
class _Context:
    labels: tuple[str, ...]
    views: tuple[View, ...]
    texts: tuple[str, ...]
    tokenizer: Any
    config: Any


def read_output(
    output: Any,
    *,
    labels: Sequence[str] = (),
    views: Sequence[View] = (),
    texts: Sequence[str] = (),
    tokenizer: Any = None,
    config: Any = None,
) -> Said:
    """Read the output of a forward pass; what is not understood is reported by its shapes.

    Parameters
    ----------
    output : what the model returned.
    labels : names of its classes by index.
    views : which part of each picture the model saw.
    texts : the texts that went in.
    tokenizer : to name tokens.
    config : the config of the model.
    """
    context = _Context(tuple(labels), tuple(views), tuple(texts), tokenizer, config)
    for read in _READERS:
        said = read(output, context)
        if said is not None:
            return said
    return _read_shapes(output)


def tokenizer_of(processor: Any) -> Any:
    """Return the tokenizer inside a processor, or the processor itself if it is one; else None."""
    inner = getattr(processor, "tokenizer", None)
    return inner if inner is not None else processor if hasattr(processor, "convert_ids_to_tokens") else None


def _get(output: Any, name: str) -> Tensor | None:
    value = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
    return value.detach().float().cpu() if isinstance(value, Tensor) else None


def _read_saliency(output: Any, context: _Context) -> Said | None:
    saliency = _get(output, "saliency")
    if saliency is None or saliency.dim() != 3:
        return None
    height, width = saliency.shape[-2:]
    # single pixels of a plateau are arbitrary; the mean over a small window is a place
    window = max(1, min(height, width) // 16) | 1
    smooth = _mean_around(saliency, window)
    sentences, points = [], []
    for index, one in enumerate(saliency):
        y, x = divmod(int(smooth[index].argmax()), width)
        view = (
            context.views[index]
            if index < len(context.views)
            else View.whole((height, width), (height, width))
        )
        point = view.to_picture(x + 0.5, y + 0.5)
        across, down = point[0] / view.picture_size[1], point[1] / view.picture_size[0]
        points.append(point)
        low, mean, high = float(one.min()), float(one.mean()), float(one.max())
        if high <= _STANDS_OUT * mean:
            sentences.append(
                f"No place stands out: predicted saliency is {low:.2f} to {high:.2f}, "
                f"mean over the picture {mean:.2f}."
            )
            continue
        sentences.append(
            f"People are predicted to look most around {100 * across:.0f} % from the left and "
            f"{100 * down:.0f} % from the top (predicted saliency up to {high:.2f}, mean over the picture "
            f"{mean:.2f})."
        )
    note = (
        "Predicted saliency is a number from 0 to 1 per pixel; it is the model's answer, not its attention."
    )
    return Said("saliency", tuple(sentences), maps=saliency, points=tuple(points), notes=(note,))


def _mean_around(values: Tensor, window: int) -> Tensor:
    """Return the mean over a square window inside the picture, [batch, height, width]: rows, then columns."""
    for size, padding in (((1, window), (0, window // 2)), ((window, 1), (window // 2, 0))):
        values = torch.nn.functional.avg_pool2d(
            values, size, stride=1, padding=padding, count_include_pad=False
        )
    return values


def _read_pairs(output: Any, context: _Context) -> Said | None:
    logits = _get(output, "logits_per_image")
    if logits is None or logits.dim() != 2:
        return None
    texts = _names(context.texts, logits.shape[1], "text")
    images, words = _get(output, "image_embeds"), _get(output, "text_embeds")
    cosine = logits if images is None or words is None else _cosine(images, words)
    share = logits.softmax(dim=-1)
    sentences, scores = [], []
    for row, part in zip(cosine, share, strict=True):
        order = row.argsort(descending=True).tolist()
        best = order[0]
        among = f", {100 * float(part[best]):.0f} % among the {len(texts)} texts" if len(texts) > 1 else ""
        scores.append(tuple((texts[i], float(row[i])) for i in order))
        sentences.append(
            f'Closest to the picture: "{texts[best]}" (similarity {float(row[best]):.3f}{among}).'
        )
    notes = ["Similarity is the cosine of the two embeddings; only its order among texts has a meaning."]
    if len(texts) == 1:
        notes.append("With one text there is nothing to compare it with.")
    return Said("similarity", tuple(sentences), tuple(scores), notes=tuple(notes))


def _read_sentences(output: Any, context: _Context) -> Said | None:
    embedding = _get(output, "sentence_embedding")
    if embedding is None:
        return None
    texts = _names(context.texts, len(embedding), "text")
    if len(texts) == 1:
        only = f'One text was read ("{texts[0]}"): give two or more to compare them.'
        return Said("similarity", (only,), ((),))
    cosine = _cosine(embedding, embedding)
    sentences, scores = [], []
    for index, row in enumerate(cosine):
        order = [i for i in row.argsort(descending=True).tolist() if i != index]
        scores.append(tuple((texts[i], float(row[i])) for i in order))
        sentences.append(
            f'"{texts[index]}" is closest to "{texts[order[0]]}" (similarity {float(row[order[0]]):.3f}).'
        )
    note = "Similarity is the cosine of the two sentence embeddings: 1 = the same direction."
    return Said("similarity", tuple(sentences), tuple(scores), notes=(note,))


def _read_words(output: Any, context: _Context) -> Said | None:
    logits = _get(output, "logits")
    tokenizer = context.tokenizer
    if logits is None or logits.dim() != 3 or tokenizer is None or logits.shape[-1] < len(tokenizer):
        return None
    masked = "MaskedLM" in " ".join(getattr(context.config, "architectures", None) or ())
    mask = getattr(tokenizer, "mask_token_id", None)
    ids = seen = None
    if context.texts and not getattr(context.config, "is_encoder_decoder", False):
        encoded = tokenizer(list(context.texts), padding=True, truncation=True, return_tensors="pt")
        if encoded["input_ids"].shape == logits.shape[:2]:
            ids, seen = encoded["input_ids"], encoded["attention_mask"]
    sentences, scores = [], []
    for index, one in enumerate(logits):
        place = one.shape[0] - 1 if seen is None else int(seen[index].nonzero().max())
        if masked:
            places = [] if ids is None or mask is None else (ids[index] == mask).nonzero()[:, 0].tolist()
            if not places:
                scores.append(())
                sentences.append("There is no masked word to fill in.")
                continue
            place = places[0]
        best = one[place].softmax(dim=-1).topk(min(_TOP, one.shape[-1]))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        scores.append(tuple((tokenizer.decode([token]).strip() or "␣", value) for token, value in pairs))
        name, value = scores[-1][0]
        what = "The masked word" if masked else "The next token"
        sentences.append(f'{what} is "{name}" with probability {value:.2f}.')
    return Said("masked token" if masked else "next token", tuple(sentences), tuple(scores))


def _read_labels(output: Any, context: _Context) -> Said | None:
    logits = output.detach().float().cpu() if isinstance(output, Tensor) else _get(output, "logits")
    if logits is None or logits.dim() != 2 or (len(context.labels) != logits.shape[1]):
        return None
    if getattr(context.config, "problem_type", None) == "regression" or logits.shape[1] == 1:
        return None
    several = getattr(context.config, "problem_type", None) == "multi_label_classification"
    shares = logits.sigmoid() if several else logits.softmax(dim=-1)
    sentences, scores = [], []
    for row in shares:
        best = row.topk(min(_TOP, len(row)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        scores.append(tuple((context.labels[i], value) for i, value in pairs))
        sentences.append(_label_sentence(scores[-1], several))
    note = (
        "Each label has its own probability; they do not sum to 1."
        if several
        else f"Probabilities over {len(context.labels)} labels sum to 1; the highest "
        f"{min(_TOP, len(context.labels))} are listed. The model must choose among its own labels."
    )
    return Said("labels", tuple(sentences), tuple(scores), notes=(note,))


def _label_sentence(scores: Scores, several: bool) -> str:
    if not several:
        rest = ", ".join(f"{name} {value:.2f}" for name, value in scores[1:3])
        return f'The model says "{scores[0][0]}" with probability {scores[0][1]:.2f} (then {rest}).'
    found = [f"{name} ({value:.2f})" for name, value in scores if value >= 0.5]
    if found:
        return f"The model sees {', '.join(found)}."
    return f"The model sees none of its labels (highest: {scores[0][0]}, {scores[0][1]:.2f})."


def _read_shapes(output: Any) -> Said:
    if isinstance(output, Tensor):
        named = {"output": output}
    elif isinstance(output, Mapping):
        named = {str(k): v for k, v in output.items() if isinstance(v, Tensor)}
    elif isinstance(output, (list, tuple)):
        named = {f"output {i}": v for i, v in enumerate(output) if isinstance(v, Tensor)}
    else:
        named = {k: v for k, v in getattr(output, "__dict__", {}).items() if isinstance(v, Tensor)}
    batch = next((len(v) for v in named.values() if v.dim()), 1)
    text = ", ".join(f"{name} {list(value.shape)}" for name, value in named.items()) or type(output).__name__
    note = "attnlib does not know how to put this output into words: these are its shapes, batch first."
    return Said("shapes", (f"The model returned {text}.",) * batch, notes=(note,))


def _names(texts: Sequence[str], count: int, word: str) -> tuple[str, ...]:
    return tuple(texts) if len(texts) == count else tuple(f"{word} {i + 1}" for i in range(count))


def _cosine(
    one: Float[Tensor, "row feature"], other: Float[Tensor, "column feature"]
) -> Float[Tensor, "row column"]:
    normalize = torch.nn.functional.normalize
    return normalize(one, dim=-1) @ normalize(other, dim=-1).T


_READERS: tuple[Callable[[Any, _Context], Said | None], ...] = (
    _read_saliency,
    _read_pairs,
    _read_sentences,
    _read_words,
    _read_labels,
)
