"""Ctrl-C at a moment of our choosing: in the context, SIGINT waits until `check`, unless it is `allowed`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")
_END: Any = object()


class Interrupts:
    """Holds SIGINT back; whoever handled it before gets it at the next `check`. Only the main thread can do this."""

    def __enter__(self) -> Interrupts:
        self._pending = self._immediate = self._installed = False
        if threading.current_thread() is threading.main_thread():
            self._previous: Any = signal.getsignal(signal.SIGINT)
            if self._previous not in (None, signal.SIG_IGN):  # None: installed by C code, not ours to replace
                signal.signal(signal.SIGINT, self._handle)
                self._installed = True
        return self

    def __exit__(self, *error: object) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, self._previous)
            if error[0] is None:
                self.check()

    def check(self) -> None:
        """Delivers a Ctrl-C that came since the last check: KeyboardInterrupt, or what the user's handler does."""
        if self._pending:
            self._pending = False
            self._deliver(signal.SIGINT, None)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Within, a Ctrl-C is delivered at once: for work that changes nothing."""
        self.check()
        self._immediate = True
        try:
            yield
        finally:
            self._immediate = False

    def while_waiting(self, items: Iterator[Item]) -> Iterator[Item]:
        """The same items; Ctrl-C is delivered at once while one is waited for."""
        while True:
            with self.allowed():
                item = next(items, _END)
            if item is _END:
                return
            yield item

    def _handle(self, number: int, frame: Any) -> None:
        if self._immediate:
            self._deliver(number, frame)
        else:
            self._pending = True

    def _deliver(self, number: int, frame: Any) -> None:
        if callable(self._previous):
            self._previous(number, frame)
        else:
            raise KeyboardInterrupt
