"""Figures: finished values in, a figure out."""
