"""Attribution methods: the registry, the propagation engine, one file a paper.

Every module of this room is loaded with it, so a new method is one new file with one decorator.
"""

import pkgutil
from importlib import import_module

from attnlib.methods.card import MethodCard as MethodCard
from attnlib.methods.card import Option as Option
from attnlib.methods.engine import Block as Block
from attnlib.methods.engine import propagate as propagate
from attnlib.methods.explain import explain as explain
from attnlib.methods.legrad import layer_scores as layer_scores
from attnlib.methods.registry import METHODS as METHODS
from attnlib.methods.registry import method as method
from attnlib.methods.request import Answer as Answer
from attnlib.methods.request import Request as Request

__all__ = [
    "METHODS",
    "Answer",
    "Block",
    "MethodCard",
    "Option",
    "Request",
    "explain",
    "layer_scores",
    "method",
    "propagate",
]

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
