"""What a forward pass left behind (AttentionRecord) and what a method made of it (Relevance)."""

from attnlib.record.attention import AttentionRecord as AttentionRecord
from attnlib.record.gaps import Gap as Gap
from attnlib.record.layer import LayerAttention as LayerAttention
from attnlib.record.placed import JoinedAttention as JoinedAttention
from attnlib.record.placed import PlacedAttention as PlacedAttention
from attnlib.record.provenance import Provenance as Provenance
from attnlib.record.relevance import Relevance as Relevance
from attnlib.record.sources import AttentionSource as AttentionSource
from attnlib.record.sources import GivenAttention as GivenAttention
from attnlib.record.sources import ProjectedAttention as ProjectedAttention
from attnlib.record.streams import GivenCall as GivenCall

__all__ = [
    "AttentionRecord",
    "AttentionSource",
    "Gap",
    "GivenAttention",
    "GivenCall",
    "JoinedAttention",
    "LayerAttention",
    "PlacedAttention",
    "ProjectedAttention",
    "Provenance",
    "Relevance",
]
