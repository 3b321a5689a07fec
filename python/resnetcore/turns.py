"""Who may change a trainer: one thread at a time, and while a `fit` of it runs, the thread of that `fit` alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ._errors import ResnetcoreError


class BusyError(ResnetcoreError, RuntimeError):
    """A trainer that another thread is training."""


class Turns:
    """A lock that is held from a step to the end of its bookkeeping, and the thread whose `fit` runs.

    `with turns:` waits for the end of another thread's step. The thread that holds it may take it again, for a signal's
    handler that saves. A forked child holds nothing that its parent's other threads held.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._lock, self._door = threading.RLock(), threading.RLock()
        self._fitting: int | None = None

    def __enter__(self) -> None:
        if self._process != os.getpid():
            self._begin_in_child()
        if not self._lock.acquire(blocking=False):
            with self._door:  # a `fit` does not pass `let_others` until whoever waits here has had the lock
                self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    @property
    def taken(self) -> bool:
        """Whether another thread's `fit` runs."""
        return self._fitting is not None and self._fitting != threading.get_ident()

    def check(self, operation: str) -> None:
        """BusyError while another thread's `fit` runs. Only what is checked and done inside `with turns:` is safe."""
        if self.taken:
            raise BusyError(
                f"{operation}: another thread's fit of this trainer is running; wait for its end, or give each thread "
                "a trainer and a network of its own"
            )

    @contextmanager
    def fit(self) -> Iterator[None]:
        """Within, this thread's `fit` runs; BusyError where one runs already."""
        with self:
            self.check("fit")
            if self._fitting is not None:
                raise BusyError("fit: a callback or an iterable of batches calls the fit that it is part of")
            self._fitting = threading.get_ident()
        try:
            yield
        finally:
            self._fitting = None

    def let_others(self) -> None:
        """Waits until those who wait for the lock have had it: a `fit` alone would take it again at once."""
        if self._process != os.getpid():
            self._begin_in_child()
        with self._door:
            pass

    def _begin_in_child(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise BusyError(
                "Trainer: this process was forked while another thread was inside a step of this trainer, so that its "
                "arrays may be half updated here; use Trainer.resume and a checkpoint"
            )
        self._lock.release()
        self._process, self._door = os.getpid(), threading.RLock()
        if self.taken:
            self._fitting = None
