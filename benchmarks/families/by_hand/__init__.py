"""Families whose parts must fit each other: their small configs and their inputs, written out."""

from by_hand import detectors, eyes, films, pages, pairs, pictures, sequences, texts, tracker, voices

MADE = {
    **detectors.MADE,
    **eyes.MADE,
    **films.MADE,
    **pages.MADE,
    **pairs.MADE,
    **pictures.MADE,
    **sequences.MADE,
    **texts.MADE,
    **tracker.MADE,
    **voices.MADE,
}
