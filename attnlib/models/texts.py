"""From texts to token ids, with readable labels and the words that tokens belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Int
from torch import Tensor

from attnlib.errors import InputError
from attnlib.layout import TokenLayout

__all__ = ["Tokenized", "only_texts", "token_labels", "tokenize"]

_INVISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥"})


@dataclass(frozen=True, eq=False)
class Tokenized:
    """Texts as a model reads them.

    Parameters
    ----------
    inputs : what the tokenizer returned, [batch, token] each.
    labels : per item one readable label per token, padding included.
    spans : per item the words that fell into several tokens, name -> (start, stop), and the two
        sentences of a pair.
    texts : the texts; a pair is joined by " | ".
    notes : what was cut off.
    """

    inputs: Mapping[str, Tensor]
    labels: tuple[tuple[str, ...], ...]
    spans: tuple[Mapping[str, tuple[int, int]], ...]
    texts: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def layouts(self, readout: Sequence[Sequence[int] | None]) -> tuple[TokenLayout, ...]:
        """Return one layout per item, given the tokens that the head reads (None = not known)."""
        rows = zip(self.labels, self.spans, readout, strict=True)
        return tuple(TokenLayout(None, tokens=t, spans=s, readout=r, notes=self.notes) for t, s, r in rows)


def only_texts(size: Any, texts: Any) -> None:
    """Refuse what only pictures need, for a model of text.

    Raises
    ------
    InputError
        If a size or further texts were given.
    """
    if size is not None or texts is not None:
        raise InputError(
            "this model reads texts only: give them as the first argument, without size or texts"
        )


def tokenize(tokenizer: Any, texts: Sequence[Any], *, max_length: int | None = None) -> Tokenized:
    """Tokenize texts, padded to the longest.

    Parameters
    ----------
    tokenizer : a Hugging Face tokenizer.
    texts : strings, or pairs of strings.
    max_length : longest input of the model, if it is not the tokenizer's own.

    Raises
    ------
    InputError
        If something is not a text, or empty.
    """
    for text in texts:
        parts = text if isinstance(text, (tuple, list)) else (text,)
        if len(parts) > 2 or not all(isinstance(part, str) for part in parts):
            raise InputError(
                f"this model reads a text or a pair of texts, got {text!r:.80}; `attnlib models` "
                "says which models look at pictures"
            )
        if not all(part.strip() for part in parts):
            raise InputError("a text is empty")
    pairs = [isinstance(text, (tuple, list)) and len(text) == 2 for text in texts]
    if len(set(pairs)) > 1:
        raise InputError("texts and pairs of texts cannot share a batch")
    firsts = [text if isinstance(text, str) else text[0] for text in texts]
    seconds = [text[1] for text in texts] if pairs[0] else None
    if tokenizer.pad_token is None:
        # the padding is masked, so any token will do
        tokenizer.pad_token = tokenizer.eos_token
    limit = min(x for x in (max_length, tokenizer.model_max_length) if x)
    encoded = tokenizer(
        firsts, seconds, padding=True, truncation=limit < 10**6, max_length=limit if limit < 10**6 else None,
        return_tensors="pt",
    )  # fmt: skip
    full = tokenizer(firsts, seconds, add_special_tokens=True, verbose=False)["input_ids"]
    cut = [i for i, ids in enumerate(full) if len(ids) > encoded["input_ids"].shape[1]]
    kept = encoded["input_ids"].shape[1]
    notes = tuple(
        f"text {i + 1} was cut off: the model reads {kept} of its {len(full[i])} tokens" for i in cut
    )
    labels = token_labels(tokenizer, encoded["input_ids"])
    spans = tuple(
        {**_words(encoded, i, firsts, seconds), **_sentences(encoded, i, seconds)} for i in range(len(texts))
    )
    joined = tuple(t if isinstance(t, str) else " | ".join(t) for t in texts)
    return Tokenized(dict(encoded), labels, spans, joined, notes)


def token_labels(tokenizer: Any, ids: Int[Tensor, "batch token"]) -> tuple[tuple[str, ...], ...]:
    """Return one readable label per token."""
    return tuple(tuple(_label(tokenizer, int(token)) for token in row) for row in ids)


def _label(tokenizer: Any, token: int) -> str:
    """Return a readable label: "banana", "##na", "[SEP]", "␣"."""
    raw = tokenizer.convert_ids_to_tokens(token)
    text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    if token in tokenizer.all_special_ids or "�" in text or raw.startswith("##"):
        return raw
    return text.strip() or text.translate(_INVISIBLE) or raw


def _words(
    encoded: Any, item: int, firsts: Sequence[str], seconds: Sequence[str] | None
) -> dict[str, tuple[int, int]]:
    """Return the words that are made of several tokens."""
    if not getattr(encoded, "is_fast", False):
        return {}
    encoding = encoded.encodings[item]
    groups: dict[tuple[int, int], list[int]] = {}
    for position, (word, part) in enumerate(zip(encoding.word_ids, encoding.sequence_ids, strict=True)):
        if word is not None and part is not None:
            groups.setdefault((part, word), []).append(position)
    spans: dict[str, tuple[int, int]] = {}
    for (part, _), positions in groups.items():
        if len(positions) < 2:
            continue
        text = (seconds if part and seconds is not None else firsts)[item]
        word = text[encoding.offsets[positions[0]][0] : encoding.offsets[positions[-1]][1]].strip()
        name, count = f"word '{word}'", 2
        while name in spans:
            name, count = f"word '{word}' ({count})", count + 1
        spans[name] = (positions[0], positions[-1] + 1)
    return spans


def _sentences(encoded: Any, item: int, seconds: Sequence[str] | None) -> dict[str, tuple[int, int]]:
    if seconds is None or not getattr(encoded, "is_fast", False):
        return {}
    parts = encoded.encodings[item].sequence_ids
    found = {}
    for number in (0, 1):
        places = [i for i, part in enumerate(parts) if part == number]
        if places:
            found[f"sentence {number + 1}"] = (places[0], places[-1] + 1)
    return found
