"""Models: one door, ``load_model``, for those at hand offline and for those of other libraries."""

from attnlib.models.embedded import MODELS as MODELS
from attnlib.models.loaded import LoadedModel as LoadedModel
from attnlib.models.loaded import ModelCard as ModelCard
from attnlib.models.loaded import Prepared as Prepared
from attnlib.models.loading import load_model as load_model
from attnlib.models.said import Said as Said

__all__ = ["MODELS", "LoadedModel", "ModelCard", "Prepared", "Said", "load_model"]
