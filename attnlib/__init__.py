"""attnlib shows where a transformer looks, and says so in words bound to numbers.

This module is the front door: the public names below are loaded when they are first used, so that
``import attnlib`` stays fast and imports no torch.
"""

from importlib import import_module

# Type checkers read this as typing.TYPE_CHECKING, whose import would be most of the start-up time.
TYPE_CHECKING = False

__version__ = "0.1.0"

_HOME = {
    "load_model": "attnlib.models",
    "LoadedModel": "attnlib.models",
    "MODELS": "attnlib.models",
    "capturing": "attnlib.hooks",
    "capture": "attnlib.hooks",
    "AttentionRecord": "attnlib.record",
    "LayerAttention": "attnlib.record",
    "Relevance": "attnlib.record",
    "Provenance": "attnlib.record",
    "TokenLayout": "attnlib.layout",
    "explain": "attnlib.methods",
    "METHODS": "attnlib.methods",
    "Picture": "attnlib.picture",
    "load_picture": "attnlib.picture",
    "Bands": "attnlib.bands",
    "band_map": "attnlib.bands",
    "LayerProfile": "attnlib.profiles",
    "layer_profile": "attnlib.profiles",
    "Region": "attnlib.regions",
    "Regions": "attnlib.regions",
    "find_regions": "attnlib.finders",
    "compare": "attnlib.evaluate",
    "Comparison": "attnlib.evaluate",
    "trust": "attnlib.evaluate",
    "Trust": "attnlib.evaluate",
    "make_scenes": "attnlib.evaluate",
    "interpret": "attnlib.interpretation",
    "Interpretation": "attnlib.interpretation",
    "overlay": "attnlib.viz",
    "explore": "attnlib.widgets",
    "run_report": "attnlib.report",
    "AttnlibError": "attnlib.errors",
    "NeedsError": "attnlib.errors",
}

# fmt: off
_ROOMS = {
    "bands", "errors", "evaluate", "finders", "hooks", "interpretation", "layout", "methods", "models",
    "picture", "profiles", "record", "regions", "report", "viz", "widgets",
}
# fmt: on

__all__ = sorted([*_HOME, "__version__"])

if TYPE_CHECKING:
    from attnlib import bands as bands
    from attnlib import errors as errors
    from attnlib import evaluate as evaluate
    from attnlib import finders as finders
    from attnlib import hooks as hooks
    from attnlib import interpretation as interpretation
    from attnlib import layout as layout
    from attnlib import methods as methods
    from attnlib import models as models
    from attnlib import picture as picture
    from attnlib import profiles as profiles
    from attnlib import record as record
    from attnlib import regions as regions
    from attnlib import report as report
    from attnlib import viz as viz
    from attnlib import widgets as widgets
    from attnlib.bands import Bands as Bands
    from attnlib.bands import band_map as band_map
    from attnlib.errors import AttnlibError as AttnlibError
    from attnlib.errors import NeedsError as NeedsError
    from attnlib.evaluate import Comparison as Comparison
    from attnlib.evaluate import Trust as Trust
    from attnlib.evaluate import compare as compare
    from attnlib.evaluate import make_scenes as make_scenes
    from attnlib.evaluate import trust as trust
    from attnlib.finders import find_regions as find_regions
    from attnlib.hooks import capture as capture
    from attnlib.hooks import capturing as capturing
    from attnlib.interpretation import Interpretation as Interpretation
    from attnlib.interpretation import interpret as interpret
    from attnlib.layout import TokenLayout as TokenLayout
    from attnlib.methods import METHODS as METHODS
    from attnlib.methods import explain as explain
    from attnlib.models import MODELS as MODELS
    from attnlib.models import LoadedModel as LoadedModel
    from attnlib.models import load_model as load_model
    from attnlib.picture import Picture as Picture
    from attnlib.picture import load_picture as load_picture
    from attnlib.profiles import LayerProfile as LayerProfile
    from attnlib.profiles import layer_profile as layer_profile
    from attnlib.record import AttentionRecord as AttentionRecord
    from attnlib.record import LayerAttention as LayerAttention
    from attnlib.record import Provenance as Provenance
    from attnlib.record import Relevance as Relevance
    from attnlib.regions import Region as Region
    from attnlib.regions import Regions as Regions
    from attnlib.report import run_report as run_report
    from attnlib.viz import overlay as overlay
    from attnlib.widgets import explore as explore


def __getattr__(name: str) -> object:
    if name in _ROOMS:  # so that attnlib.viz.overlay_image(...) needs no import of its own
        return import_module(f"attnlib.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'attnlib' has no attribute {name!r}")
    from attnlib.collector import paused

    with paused():  # torch comes with the first name
        value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_ROOMS})
