"""Slow work beside the widgets: one job at a time, with progress, that can be cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from attnlib.errors import AttnlibError

__all__ = ["AfterRest", "Cancelled", "Step", "Worker"]

Step = tuple[str, Callable[[], None]]


class Cancelled(AttnlibError):
    """The work was cancelled; what was shown before stays."""


class AfterRest:
    """Does something when the hand has rested for a moment, however often it is asked for before.

    Parameters
    ----------
    work : what is done, on a thread of its own.
    rest : seconds.
    """

    def __init__(self, work: Callable[[], None], rest: float = 0.4) -> None:
        self._work, self._rest = work, rest
        self._pause: threading.Timer | None = None

    def __call__(self) -> None:
        """Ask for it."""
        if self._pause is not None:
            self._pause.cancel()
        self._pause = threading.Timer(self._rest, self._work)
        self._pause.daemon = True
        self._pause.start()


class Worker:
    """Runs named steps one after another on one other thread.

    Starting a job cancels the one before. A job stops before its next step, or inside one where the step
    calls :meth:`check`.

    Parameters
    ----------
    on_progress : gets (steps done, steps in all, name of the present step).
    on_end : gets None, or the exception that ended the job.
    """

    def __init__(
        self,
        on_progress: Callable[[int, int, str], None],
        on_end: Callable[[BaseException | None], None],
    ) -> None:
        self._on_progress = on_progress
        self._on_end = on_end
        self._lock = threading.Lock()
        self._cancel = threading.Event()
        self._thread: threading.Thread | None = None
        self._mine = threading.local()

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, steps: Sequence[Step]) -> None:
        """Cancel what runs and start these steps."""
        self.cancel()
        cancel = self._cancel = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(list(steps), cancel), name="attnlib-explorer", daemon=True
        )
        self._thread.start()

    def run(self, steps: Sequence[Step]) -> None:
        """Run these steps on the calling thread and raise what they raise."""
        with self._lock:
            for done, (name, work) in enumerate(steps):
                self._on_progress(done, len(steps), name)
                work()
        self._on_progress(len(steps), len(steps), "")

    def cancel(self) -> None:
        """Stop before the next step, or at the next :meth:`check` inside one."""
        self._cancel.set()

    @property
    def is_latest(self) -> bool:
        """Whether no other job was started after the one of this thread."""
        return getattr(self._mine, "cancel", None) is self._cancel

    def check(self) -> None:
        """Stop here if the job of this thread was cancelled.

        Raises
        ------
        Cancelled
            If it was.
        """
        cancel = getattr(self._mine, "cancel", None)
        if cancel is not None and cancel.is_set():
            raise Cancelled("cancelled; what is shown is from before")

    def wait(self, timeout: float | int | None = None) -> bool:
        """Wait for the job; False if it still runs after ``timeout`` seconds."""
        if self._thread is not None:
            self._thread.join(timeout)
        return not self.busy

    def _run(self, steps: list[Step], cancel: threading.Event) -> None:
        problem: BaseException | None = None
        self._mine.cancel = cancel
        with self._lock:
            try:
                for done, (name, work) in enumerate(steps):
                    self.check()
                    self._on_progress(done, len(steps), name)
                    work()
            except Exception as error:
                problem = error
        if not cancel.is_set() or isinstance(problem, Cancelled):
            self._on_end(problem)
