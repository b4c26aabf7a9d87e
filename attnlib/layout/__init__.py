"""Which token is which: TokenLayout and the rules that find it for a model."""

from attnlib.layout.token_layout import TokenLayout as TokenLayout

__all__ = ["TokenLayout"]
