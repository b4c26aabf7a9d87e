"""Pictures in: decoded and upright, and the map between picture, model input and patch grid."""

from attnlib.picture.decoding import Picture as Picture
from attnlib.picture.decoding import load_picture as load_picture
from attnlib.picture.samples import sample as sample
from attnlib.picture.samples import samples as samples
from attnlib.picture.view import Box as Box
from attnlib.picture.view import View as View

__all__ = ["Box", "Picture", "View", "load_picture", "sample", "samples"]
