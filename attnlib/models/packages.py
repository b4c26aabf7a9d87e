"""Packages that not everyone has: found without importing them, imported with a helpful error."""

from __future__ import annotations

import importlib.util
from importlib import import_module
from pathlib import Path
from types import ModuleType

from attnlib.errors import MissingPackageError

__all__ = ["package_folder", "required"]


def package_folder(module: str, package: str, *, extra: str) -> Path:
    """Return the folder of an installed package without importing it.

    Parameters
    ----------
    module : name under which it would be imported.
    package : name on PyPI.
    extra : the extra of attnlib that installs it.

    Raises
    ------
    MissingPackageError
        If it is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise _missing(package, extra)
    return Path(next(iter(spec.submodule_search_locations)))


def required(module: str, *, extra: str) -> ModuleType:
    """Import an optional package.

    Raises
    ------
    MissingPackageError
        If it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise _missing(module, extra) from None


def _missing(package: str, extra: str) -> MissingPackageError:
    return MissingPackageError(
        f'the package {package} is not installed; install it with: pip install "attnlib[{extra}]"'
    )
