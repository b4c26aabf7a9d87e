"""Named regions of a picture: lines of text, faces and their parts, boxes, masks."""
