"""Signals at a moment of our choosing: in the context, handlers written in Python wait until `check` or `allowed`.

Python runs a handler between any two of its instructions, so also between a step and its bookkeeping. One that raises
(as Ctrl-C's does) or saves must not come there.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")


class Interrupts:
    """Holds signals back; whoever handled one before gets it at the next `check`. Only the main thread can do this."""

    def __enter__(self) -> Interrupts:
        self._pending: list[int] = []
        self._immediate = False
        self._handlers: dict[int, Any] = {}
        try:
            if threading.current_thread() is threading.main_thread():
                self._install()
        except BaseException:  # of a handler that is not held back yet
            self._restore()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()
        self.check()

    def check(self) -> None:
        """Delivers what came since the last check: KeyboardInterrupt, or what the user's handler does."""
        for _ in range(len(self._pending)):  # those that come meanwhile wait: a step is made between two rounds
            number = self._pending.pop(0)
            self._handlers[number](number, None)

    def next(self, items: Iterator[Item]) -> Item | None:
        """The next item, or None after the last; while it is made, signals are delivered at once."""
        self.check()
        self._immediate = True
        try:
            return next(items, None)
        finally:
            self._immediate = False

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Within, signals are delivered at once: for work that changes nothing."""
        self.check()
        self._immediate = True
        try:
            yield
        finally:
            self._immediate = False

    def _install(self) -> None:
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if callable(handler):  # neither ignored, nor the system's own, nor installed by C code
                self._handlers[number] = handler
                signal.signal(number, self._handle)

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._handle:  # else a callback has installed its own
                signal.signal(number, handler)

    def _handle(self, number: int, frame: Any) -> None:
        if self._immediate:
            self._handlers[number](number, frame)
        elif number not in self._pending:
            self._pending.append(number)
