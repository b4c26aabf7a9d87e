"""Which token is which: TokenLayout and the rules that find it for a model."""

from attnlib.layout.rules import TokenFacts as TokenFacts
from attnlib.layout.rules import image_layout as image_layout
from attnlib.layout.rules import prefix_names as prefix_names
from attnlib.layout.rules import text_layout as text_layout
from attnlib.layout.rules import with_generated as with_generated
from attnlib.layout.token_layout import TokenLayout as TokenLayout

__all__ = ["TokenFacts", "TokenLayout", "image_layout", "prefix_names", "text_layout", "with_generated"]
