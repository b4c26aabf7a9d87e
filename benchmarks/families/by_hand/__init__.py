"""Families whose parts must fit each other: their small configs and their inputs, written out."""

from by_hand import detectors, pairs, pictures, sequences, tracker

MADE = {**detectors.MADE, **pictures.MADE, **sequences.MADE, **pairs.MADE, **tracker.MADE}
