"""The one family of errors that attnlib raises on purpose.

Every message says what came, where it came from and what to do next. Each class also inherits the
built-in error that Python users would expect, so ``except ValueError`` keeps working.
"""

__all__ = [
    "AttnlibError",
    "BudgetError",
    "CaptureError",
    "InputError",
    "LayoutError",
    "MissingPackageError",
    "ModelError",
    "NeedsError",
    "PictureError",
    "ReportError",
]


class AttnlibError(Exception):
    """Base of all errors raised by attnlib."""


class InputError(AttnlibError, ValueError):
    """An argument has a value, shape or name that cannot be used."""


class PictureError(AttnlibError, ValueError):
    """A picture cannot be read, or does not fit what is asked of it."""


class LayoutError(AttnlibError, ValueError):
    """The layout of the tokens is unknown, ambiguous, or contradicts the record."""


class CaptureError(AttnlibError, RuntimeError):
    """An attention call was missed, or what was seen does not reproduce the model's own output."""


class NeedsError(AttnlibError, RuntimeError):
    """A method needs something that the record does not hold; names the capture argument."""


class BudgetError(AttnlibError, MemoryError):
    """The work would need more memory than allowed; says how much and what would be cheaper."""


class ModelError(AttnlibError, RuntimeError):
    """A model or its weights cannot be loaded."""


class MissingPackageError(AttnlibError, ImportError):
    """An optional package is not installed; says which extra to install."""


class ReportError(AttnlibError, RuntimeError):
    """A report could not be made; nothing half-written is left at its place."""
