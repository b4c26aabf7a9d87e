"""Options that more than one method offers."""

from attnlib.methods.card import Option

__all__ = ["DISCARD", "HEADS", "HEAD_FUSION", "RESIDUAL", "START_LAYER", "TARGET"]

HEAD_FUSION = Option(
    "head_fusion", "mean", "How the heads of a layer become one matrix.", "choice", ("mean", "max", "min")
)
HEADS = Option("heads", None, "Heads to fuse.", "indices")
START_LAYER = Option(
    "start_layer",
    0,
    "First layer that takes part; layers below are left out. Negative counts from the end.",
    "int",
)
RESIDUAL = Option(
    "residual_weight", 0.5, "Share of the skip connection in each layer.", "float", low=0.0, high=1.0
)
DISCARD = Option(
    "discard_ratio",
    0.0,
    "Share of each layer's fused matrix, its smallest entries, that is set to 0 (needs one N x N matrix "
    "at a time).",
    "float",
    low=0.0,
    high=1.0,
)
TARGET = Option(
    "target",
    None,
    "What is explained: a label index or name, one per item, or a function of the output; None = what the "
    "capture was asked for.",
    optional=True,
)
