"""What a map says, in words bound to numbers."""

from attnlib.interpretation.build import interpret as interpret
from attnlib.interpretation.claims import Claim as Claim
from attnlib.interpretation.claims import Interpretation as Interpretation
from attnlib.interpretation.claims import Section as Section

__all__ = ["Claim", "Interpretation", "Section", "interpret"]
