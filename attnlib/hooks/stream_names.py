"""What the stream of an attention call is called: by module path, what its model takes in, or its tokens."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from attnlib.hooks.calls import Call
from attnlib.hooks.kinds import roots_of

__all__ = ["StreamNames"]

_STREAM_WORDS = (
    ("vision", ("vision", "visual", "image", "pixel")),
    ("text", ("text", "language")),
    ("audio", ("audio", "speech")),
)


class StreamNames:
    """Names for the streams of one model.

    Parameters
    ----------
    model : the module that runs.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        config = getattr(model, "config", None)
        self._two_sided = bool(getattr(config, "is_encoder_decoder", False))

    def of(self, call: Call, *, mixed: bool) -> str:
        """Return the name of the stream that a call belongs to.

        Parameters
        ----------
        call : one attention call.
        mixed : whether some calls of the pass are made in a decoder, and some are not.
        """
        parts = call.name.lower().split(".")
        roots = roots_of(call.query_sequence)
        if self._two_sided or mixed:
            if any("decoder" in part for part in parts):
                return "decoder"
            if self._two_sided:
                named = _by_words(parts)
                return named if named == "vision" and "pixel_values" not in roots else "encoder"
        named = _by_words(parts) or self._by_own_word(call) or _by_modality(call)
        no_pixels = not any(one.is_floating_point() for one in call.root.named.values())
        return "encoder" if mixed and "encoder" in parts and (no_pixels or named == "tokens") else named

    def _by_own_word(self, call: Call) -> str | None:
        """Return what the nearest model around a call says it takes in, if that is one thing other than text.

        Text is what a model says that says nothing, so it is no answer.
        """
        path = call.name
        while True:
            said = getattr(self._model.get_submodule(path), "input_modalities", None)
            if said is not None:
                words = {said} if isinstance(said, str) else {str(one) for one in said}
                if words and words <= {"image", "video"}:
                    return "vision"
                return "audio" if words == {"audio"} else None
            if not path:
                return None
            path = path.rpartition(".")[0]


def _by_words(parts: Iterable[str]) -> str | None:
    for part in parts:
        for stream, words in _STREAM_WORDS:
            if any(word in part for word in words):
                return stream
    return None


def _by_modality(call: Call) -> str:
    """Name a stream by what goes in: pixels, token ids, or an argument whose name says it."""
    sequences = [one for one in (call.query_sequence, call.key_sequence) if one is not None]
    known = [one for sequence in sequences for one in sequence.ancestors]
    for one in known:
        if one.modality == "mixed":
            return "tokens"
        if one.modality in ("pixels", "ids"):
            return "vision" if one.modality == "pixels" else "text"
    named = _by_words(one.root.lower() for one in known if one.root)
    if named or any(one.modality == "states" for one in known):
        return named or "tokens"
    given = [*call.root.named.values()]
    if given and not any(one.is_floating_point() for one in given):
        return "text"
    pictures = given and all(one.dim() >= 4 and one.is_floating_point() for one in given)
    return "vision" if pictures or any(one.grid is not None for one in known) else "tokens"
