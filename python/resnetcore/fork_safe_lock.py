"""A reentrant lock that a forked child can take although another thread of its parent held it at the fork."""

from __future__ import annotations

import os
import threading


class ForkSafeLock:
    """`with lock:` as `threading.RLock`; the child of a fork, where the holder does not exist, starts with a fresh one."""

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._lock, self._process = threading.RLock(), os.getpid()

    def __enter__(self) -> None:
        if self._process != os.getpid():
            self._renew()
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()
