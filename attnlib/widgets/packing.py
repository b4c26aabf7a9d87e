"""Packing: arrays into one binary blob that a browser reads without a server."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["LOG_STEPS", "PRECISION", "Blob", "log_codes", "log_values"]

LOG_STEPS = 16
"""Byte codes per factor of two: neighbours differ by 4.4 %, so a value is off by at most 2.2 %."""
PRECISION = {"f32": "exact", "f16": "to 3 digits", "u8": "within 2.2 %"}
"""What each storage type promises, in the words the viewer shows."""

Reference = dict[str, Any]


@dataclass(eq=False)
class Blob:
    """Bytes under construction; every array put in is described by a JSON-ready reference.

    What is put in for ``later`` stands after everything else, so that a page can show its first picture
    before it reads the rest; its references are complete once :meth:`tobytes` was called.
    """

    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    waiting: list[tuple[Reference, bytes]] = field(default_factory=list)
    split: int | None = None

    def put(
        self, array: np.ndarray, dtype: str = "f32", *, pack: bool | None = None, later: bool = False
    ) -> Reference:
        """Add an array and return its reference.

        Parameters
        ----------
        array : rows of numbers along the last axis.
        dtype : "f32" exact; "f16" three digits; "u8" logarithmic bytes, scaled by the largest of each
            row (non-negative numbers only), within 2.2 % over a range of 65,000 below that largest.
        pack : deflate; by default where it saves at least a tenth.
        later : the first picture does not need it.
        """
        values = np.ascontiguousarray(array, dtype=np.float32)
        reference: Reference = {"dtype": dtype, "shape": list(values.shape)}
        if dtype == "u8":
            codes, largest = log_codes(values)
            reference["scale"] = self.put(largest, "f32", pack=False, later=later)
            raw = codes.tobytes()
        else:
            raw = values.astype("<f2" if dtype == "f16" else "<f4").tobytes()
        return self.put_bytes(raw, pack=pack, later=later, about=reference)

    def put_bytes(
        self,
        raw: bytes,
        *,
        pack: bool | None = False,
        later: bool = False,
        about: Reference | None = None,
    ) -> Reference:
        """Add bytes as they are and return where they stand, with what else is known about them."""
        packed = pack is True
        if pack is None and len(raw) > 1024:
            squeezed = zlib.compress(raw, 6)
            packed = len(squeezed) < 0.9 * len(raw)
            raw = squeezed if packed else raw
        elif packed:
            raw = zlib.compress(raw, 6)
        reference = {**(about or {}), "offset": -1, "length": len(raw), "packed": packed}
        if later:
            self.waiting.append((reference, raw))
        else:
            self._place(reference, raw)
        return reference

    @property
    def whole_size(self) -> int:
        """Number of bytes, with what comes later."""
        return self.size + sum(len(raw) + -len(raw) % 4 for _, raw in self.waiting)

    def tobytes(self) -> bytes:
        """Return all bytes; ``split`` then says where the later ones begin."""
        if self.split is None:
            self.split = self.size
            for reference, raw in self.waiting:
                self._place(reference, raw)
            self.waiting = []
        return b"".join(self.parts)

    def _place(self, reference: Reference, raw: bytes) -> None:
        reference["offset"] = self.size
        padding = -len(raw) % 4  # float32 views in the browser start at multiples of four
        self.parts += [raw, bytes(padding)]
        self.size += len(raw) + padding


def log_codes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Code non-negative rows as logarithmic bytes below the largest of each row.

    .. math:: c = 255 + \mathrm{round}(16 \log_2 (v / v_{max})), \quad c = 0 \text{ for } v = 0

    Returns
    -------
    codes : uint8, the shape of ``values``.
    largest : float32, one per row.
    """
    largest = np.maximum(values.max(axis=-1), 0).astype(np.float32)
    safe = np.where(largest > 0, largest, 1)[..., None]
    with np.errstate(divide="ignore"):
        steps = 255 + np.rint(LOG_STEPS * np.log2(np.clip(values, 0, None) / safe))
    return np.clip(steps, 0, 255).astype(np.uint8), largest


def log_values(codes: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Read :func:`log_codes` back, as the browser does."""
    values = np.exp2((codes.astype(np.float32) - 255) / LOG_STEPS) * largest[..., None]
    return np.where(codes == 0, 0, values).astype(np.float32)
