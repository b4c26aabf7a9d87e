"""Generated sentences with a missing verb whose number one known word decides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attnlib.errors import InputError

__all__ = ["NOUNS", "AgreementSentence", "agreement_sentences", "vocabulary"]

NOUNS = (
    ("key", "keys"),
    ("boy", "boys"),
    ("dog", "dogs"),
    ("poet", "poets"),
    ("nurse", "nurses"),
    ("farmer", "farmers"),
    ("lamp", "lamps"),
    ("ship", "ships"),
    ("letter", "letters"),
    ("child", "children"),
    ("woman", "women"),
    ("mouse", "mice"),
)
_ADJECTIVES = ("old", "quiet", "small", "green", "clever", "tired")
_PREPOSITIONS = ("near", "behind", "beside", "with", "above")
_ADVERBS = ("today", "often", "perhaps", "always")
_VERBS = ("saw", "met", "heard", "liked")
_ENDINGS = ("here", "gone", "late", "ready")
MISSING = "[MASK]"


@dataclass(frozen=True)
class AgreementSentence:
    """A sentence with a missing verb.

    Parameters
    ----------
    text : the words, with ``[MASK]`` for the verb.
    plural : whether the verb is plural.
    subject : position of the noun that decides, counted in words.
    attractor : position of another noun that does not, or None.
    attractor_plural : the number of that noun, or None.
    """

    text: str
    plural: bool
    subject: int
    attractor: int | None
    attractor_plural: bool | None


def vocabulary() -> tuple[str, ...]:
    """Return every word that the sentences use, without the marks of a tokenizer."""
    nouns = [form for pair in NOUNS for form in pair]
    others = [*_ADJECTIVES, *_PREPOSITIONS, *_ADVERBS, *_VERBS, *_ENDINGS]
    return ("the", "that", ".", *nouns, *others)


def agreement_sentences(count: int, *, seed: int = 0) -> tuple[AgreementSentence, ...]:
    """Return sentences such as "the old key near the boys [MASK] here ."; same seed, same sentences.

    Three in four hold a second noun, behind the subject or (with a preposition) before it; its
    number is drawn freely, so it misleads in half of the cases.

    Raises
    ------
    InputError
        If ``count`` is below 1.
    """
    if count < 1:
        raise InputError(f"agreement_sentences makes one sentence or more, got count={count}")
    rng = np.random.default_rng([seed, 31])

    def pick(words: tuple) -> str:
        return words[rng.integers(len(words))]

    def noun_phrase(number: int) -> list[str]:
        adjective = [pick(_ADJECTIVES)] if rng.random() < 0.5 else []
        return ["the", *adjective, NOUNS[rng.integers(len(NOUNS))][number]]

    sentences = []
    for _ in range(count):
        number, other = int(rng.integers(2)), int(rng.integers(2))
        place = rng.random()
        words, attractor = [pick(_ADVERBS)] if rng.random() < 0.4 else [], None
        if place < 0.35:
            words += [pick(_PREPOSITIONS), *noun_phrase(other)]
            attractor = len(words) - 1
        words += noun_phrase(number)
        subject = len(words) - 1
        if 0.35 <= place < 0.75:
            link = [pick(_PREPOSITIONS)] if rng.random() < 0.6 else ["that", pick(_VERBS)]
            words += [*link, *noun_phrase(other)]
            attractor = len(words) - 1
        words += [MISSING, pick(_ENDINGS), "."]
        told = None if attractor is None else bool(other)
        sentences.append(AgreementSentence(" ".join(words), bool(number), subject, attractor, told))
    return tuple(sentences)
