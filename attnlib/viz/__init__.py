"""Figures: finished values in, a figure out; nothing is normalised, shown or saved here."""

from attnlib.viz.overlay import overlay as overlay

__all__ = ["overlay"]
