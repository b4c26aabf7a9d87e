"""What a method may take for whole matrices, and what to say before it is too much."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from attnlib.errors import BudgetError

__all__ = ["demand", "memory_at_hand"]

_GROUP = Path("/sys/fs/cgroup")


def memory_at_hand(device: torch.device | None = None) -> int | None:
    """Return the bytes that are free on a device; for the processor, what the machine and its group leave.

    Parameters
    ----------
    device : None = the processor.

    Returns
    -------
    None where the machine does not say.
    """
    if device is not None and device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    known = [size for size in (_available(), _left_to_group()) if size is not None]
    return min(known) if known else None


def demand(
    needed: int, what: str, cheaper: str, *, max_memory: int | None = None, device: torch.device | None = None
) -> None:
    """Refuse work that would take more memory than is allowed, before anything is taken.

    Parameters
    ----------
    needed : bytes, estimated from the sizes.
    what : who needs them and for what, such as "rollout needs whole matrices of 5000x5000".
    cheaper : what to do instead.
    max_memory : bytes that the caller allows; None = what is free on the device.
    device : where the matrices will be.

    Raises
    ------
    BudgetError
        If ``needed`` is more than that.
    """
    allowed = memory_at_hand(device) if max_memory is None else max_memory
    if allowed is None or needed <= allowed:
        return
    limit = "are free here" if max_memory is None else "are allowed (max_memory)"
    raise BudgetError(f"{what}, about {_size(needed)}; {_size(allowed)} {limit}: {cheaper}")


def _available() -> int | None:
    """Return what the machine has left, caches counted as free."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return None


def _left_to_group() -> int | None:
    """Return what a container's limit leaves; None without a limit."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most = int((_GROUP / limit).read_text(encoding="ascii"))
            return max(0, most - int((_GROUP / used).read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return None


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 10**8 else f"{count / 1e6:.1f} MB"
