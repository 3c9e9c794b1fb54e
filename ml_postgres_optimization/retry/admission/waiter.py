"""Somebody in a queue: a thread, or a task."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Protocol


class Waiter(Protocol):
    """Somebody in a queue; whoever lets him in holds the queue's lock."""

    is_let_in: bool

    def let_in(self) -> bool:
        """Let him in and wake him, and tell whether he is there still."""


class ThreadWaiter:
    """A thread in a queue."""

    def __init__(self) -> None:
        self.is_let_in = False
        self._event = threading.Event()

    def let_in(self) -> bool:
        """Let it in, and wake it."""
        self.is_let_in = True
        self._event.set()
        return True

    def wait(self, seconds: float) -> None:
        """Wait until it is let in, or the time is over."""
        self._event.wait(seconds)


class TaskWaiter:
    """A task in a queue; another thread may let it in."""

    def __init__(self) -> None:
        self.is_let_in = False
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def let_in(self) -> bool:
        """Let it in and wake it, unless its loop was closed over it."""
        try:
            self._loop.call_soon_threadsafe(self._event.set)
        except RuntimeError:
            return False
        self.is_let_in = True
        return True

    async def wait(self, seconds: float) -> None:
        """Wait until it is let in, or the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
