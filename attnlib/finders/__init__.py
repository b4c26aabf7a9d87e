"""Named regions of a picture: lines of text, faces and their parts, boxes, masks, positions."""

from attnlib.finders.faces import FACE_PARTS as FACE_PARTS
from attnlib.finders.find import find_regions as find_regions
from attnlib.finders.overlap import OVERLAP_RULE as OVERLAP_RULE
from attnlib.finders.positions import nine_fields as nine_fields
from attnlib.finders.positions import positions as positions

__all__ = ["FACE_PARTS", "OVERLAP_RULE", "find_regions", "nine_fields", "positions"]
