"""Names that are not taken yet."""

from __future__ import annotations

from collections.abc import Container

__all__ = ["free_name"]


def free_name(name: str, taken: Container[str]) -> str:
    """Return the name itself, or "name 2", "name 3" ... where it is taken."""
    free, number = name, 2
    while free in taken:
        free, number = f"{name} {number}", number + 1
    return free
