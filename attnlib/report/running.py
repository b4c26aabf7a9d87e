"""Running a notebook headless, to its end or to a clear error."""

from __future__ import annotations

import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any

from attnlib import errors
from attnlib.errors import AttnlibError, ReportError

if TYPE_CHECKING:
    import nbformat

__all__ = ["FailedNotebookError", "run_notebook"]

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class FailedNotebookError(ReportError):
    """A cell of the notebook failed.

    Parameters
    ----------
    message : what failed, with the traceback unless it is an error in words of attnlib's own.
    partial : the notebook as far as it ran.
    kind : name of the error that the cell raised; "" if none did.
    """

    def __init__(self, message: str, partial: nbformat.NotebookNode, kind: str = "") -> None:
        super().__init__(message)
        self.partial = partial
        self.kind = kind


def run_notebook(
    notebook: nbformat.NotebookNode,
    parameters: Mapping[str, Any],
    *,
    timeout: float | int | None = 1800,
    progress: bool = False,
) -> nbformat.NotebookNode:
    """Run a notebook with papermill in a fresh kernel of this Python.

    Parameters
    ----------
    notebook : what to run; it stays as it is.
    parameters : values for its parameters cell, checked by the caller.
    timeout : seconds that one cell may take; None = no limit.
    progress : show a progress bar on standard error.

    Raises
    ------
    FailedNotebookError
        If a cell fails, takes too long, or the kernel dies or does not start; holds the notebook as far as
        it ran.
    """
    import nbformat
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    bar: Any = {"desc": "running", "bar_format": "{desc} {n_fmt}/{total_fmt} cells [{elapsed}] {bar:24}"}
    with tempfile.TemporaryDirectory(prefix="attnlib-") as folder, _quiet(), _polling():
        output = Path(folder) / "run.ipynb"
        source = Path(folder) / "source.ipynb"
        nbformat.write(notebook, source)
        try:
            return papermill.execute_notebook(
                str(source),
                str(output),
                parameters=dict(parameters),
                kernel_name="python3",
                progress_bar=bar if progress else False,
                request_save_on_cell_execute=True,
                autosave_cell_every=0,
                execution_timeout=timeout,
                extra_arguments=["--IPKernelApp.log_level=50"],
            )
        except papermill.PapermillExecutionError as error:
            message = f"cell {error.exec_count} of the notebook failed: {error.ename}: {error.evalue}"
            if not _is_own(error.ename):  # ours say where and what to do; the notebook keeps the traceback
                message += "\n" + _ANSI.sub("", "\n".join(error.traceback)).strip()
            raise FailedNotebookError(message, _partial(output, notebook), error.ename) from None
        except CellTimeoutError:
            message = f"a cell of the notebook took longer than {timeout:g} s"
            raise FailedNotebookError(message, _partial(output, notebook)) from None
        except DeadKernelError:
            message = "the kernel died while the notebook ran (out of memory?)"
            raise FailedNotebookError(message, _partial(output, notebook)) from None
        except (RuntimeError, OSError, NoSuchKernel) as error:
            message = (
                f"the kernel of the notebook did not start or was lost: {type(error).__name__}: {error}. "
                "Check that python -m ipykernel --version works, and that memory and processes are left"
            )
            raise FailedNotebookError(message, _partial(output, notebook)) from error


def _is_own(kind: str) -> bool:
    """Tell whether an error of that name is one of attnlib's."""
    found = getattr(errors, kind, None)
    return isinstance(found, type) and issubclass(found, AttnlibError)


def _partial(output: Path, notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    import nbformat

    return nbformat.read(output, as_version=4) if output.is_file() else notebook


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep papermill's log and the progress bars of model loading out of the way."""
    logger, level = logging.getLogger("papermill"), logging.getLogger("papermill").level
    held = os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS")
    logger.setLevel(logging.ERROR)
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    try:
        yield
    finally:
        logger.setLevel(level)
        if held is None:
            os.environ.pop("HF_HUB_DISABLE_PROGRESS_BARS", None)
        else:
            os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = held


@contextmanager
def _polling(step: float = 0.2) -> Iterator[None]:
    """Wait for the kernel in short slices.

    The asyncio socket may miss the edge that says a reply has come, and then sleeps until its timeout,
    which papermill does not set (jupyter/nbclient#312): large outputs inside a widget are enough.
    """
    from jupyter_client.channels import AsyncZMQSocketChannel

    original = AsyncZMQSocketChannel.get_msg

    async def get_msg(self: Any, timeout: float | None = None) -> dict[str, Any]:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = step if end is None else min(step, end - time.monotonic())
            if await self.socket.poll(max(0, int(left * 1000))):
                return await self._recv()
            if end is not None and time.monotonic() >= end:
                raise Empty

    AsyncZMQSocketChannel.get_msg = get_msg  # type: ignore[method-assign]
    try:
        yield
    finally:
        AsyncZMQSocketChannel.get_msg = original  # type: ignore[method-assign]
