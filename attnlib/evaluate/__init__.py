"""Evidence beside the maps: comparison, perturbation, localisation, randomisation, artifacts."""

from attnlib.evaluate.comparison import Comparison as Comparison
from attnlib.evaluate.comparison import compare as compare

__all__ = ["Comparison", "compare"]
