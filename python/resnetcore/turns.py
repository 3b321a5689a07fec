"""Who may change a trainer: one thread at a time, and while a `fit` of it runs, the thread of that `fit` alone."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from ._errors import BusyError


class Turns:
    """A lock that is held from a step to the end of its bookkeeping, and the thread whose `fit` runs.

    The thread that holds the lock may take it again, for a signal's handler that saves. A forked child holds nothing that
    its parent's other threads held. Those who step take `lock` itself after `let_others`; all others use `held`.
    """

    def __init__(self) -> None:
        self.lock: Any = threading.RLock()
        self.waiting = False
        self.fitting: int | None = None
        self._door = threading.RLock()
        _ALL.add(self)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, the lock is this thread's. Taken by `with` alone, which Ctrl-C cannot come between."""
        if not self.lock._is_owned():  # else whoever stands in the door waits for this very thread
            with self._door:
                self.waiting = True
                try:
                    with self.lock:
                        pass
                finally:
                    self.waiting = False
        with self.lock:
            yield

    def let_others(self) -> None:
        """Waits, while `waiting`, until those who wait have had the lock: a loop of steps would take it again at once."""
        if not self.lock._is_owned():
            with self._door:
                pass

    @property
    def taken(self) -> bool:
        """Whether another thread's `fit` runs."""
        return self.fitting is not None and self.fitting != threading.get_ident()

    def check(self, operation: str) -> None:
        """BusyError while another thread's `fit` runs. It may begin at any time that the lock is not held."""
        if self.taken:
            raise BusyError(
                f"{operation}: another thread's fit of this trainer is running; wait for its end, or give each thread "
                "a trainer and a network of its own"
            )

    @contextmanager
    def fit(self) -> Iterator[None]:
        """Within, this thread's `fit` runs; BusyError where one runs already."""
        with self.held():
            self.check("fit")
            if self.fitting is not None:
                raise BusyError("fit: a callback or an iterable of batches calls the fit that it is part of")
            self.fitting = threading.get_ident()
        try:
            yield
        finally:
            self.fitting = None

    def begin_in_child(self) -> None:
        """In a forked child: of the parent's threads, only the one that forked is there."""
        if self.lock.acquire(blocking=False):
            self.lock.release()
        else:
            self.lock = _LeftBehind()
        self.waiting, self._door = False, threading.RLock()
        if self.taken:
            self.fitting = None


class _LeftBehind:
    """In the place of a lock whose holder is not in this process."""

    def _is_owned(self) -> bool:
        return False

    def __enter__(self) -> NoReturn:
        raise BusyError(
            "Trainer: this process was forked while another thread was inside a step of this trainer, so that its arrays "
            "may be half updated here; use Trainer.resume and a checkpoint"
        )

    def __exit__(self, *error: object) -> None:
        pass


def _begin_in_child() -> None:
    for turns in list(_ALL):
        turns.begin_in_child()


_ALL: weakref.WeakSet[Turns] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
