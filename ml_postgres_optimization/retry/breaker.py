"""Leave a server alone that does not answer, and see with one call whether it is back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import StrEnum

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.retry.backoff import full_jitter_seconds

_ASK_AGAIN_SECONDS = 0.1
# Thousands that ask ten times a second would keep a core busy with asking.
_LATEST_ASK_AGAIN_SECONDS = 1.0
_ASKS_AT_FIRST = 100


class Circuit(StrEnum):
    """Whether calls go through."""

    CLOSED = "closed"
    """They do."""
    OPEN = "open"
    """None does."""
    PROBING = "probing"
    """One does, to see."""


class CircuitBreaker:
    """Stop calling a server after failures in a row, and let one call through from time to time.

    Parameters
    ----------
    failures : int
        So many calls in a row that did not reach the server open the circuit.
    base_seconds, cap_seconds : float
        The first and the longest time that it stays open; each probe that fails doubles it. It is drawn from the
        upper half, so that several clients do not probe together.
    probe_seconds : float
        A probe that says nothing for so long is taken for lost, and another one is let through.
    monotonic_seconds : callable
        The time.

    Notes
    -----
    Only failures of the connection count: a server that answers with an error is there. Thread safe.

    References
    ----------
    M. Nygard, "Release It!", 2nd edition, 2018, "Circuit Breaker".
    """

    def __init__(
        self,
        *,
        failures: int = 5,
        base_seconds: float = 0.5,
        cap_seconds: float = 10.0,
        probe_seconds: float = 30.0,
        monotonic_seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        if not (failures >= 1 and 0.0 < base_seconds <= cap_seconds and probe_seconds > 0.0):
            raise UsageError(
                f"{failures!r} failures, {base_seconds!r} to {cap_seconds!r} s open, {probe_seconds!r} s a probe: "
                "that is no circuit.",
                "Give 1 failure or more, and times above 0.",
            )
        self._most = failures
        self._base_seconds, self._cap_seconds, self._probe_seconds = base_seconds, cap_seconds, probe_seconds
        self._now = monotonic_seconds
        self._failures = 0
        self._openings = 0
        self._next_call_at_seconds = 0.0
        self._state = Circuit.CLOSED
        self._prober: object = None
        self._asked = 0
        self._lock = threading.Lock()

    @property
    def state(self) -> Circuit:
        """Whether calls go through."""
        return self._state

    def ask(self, asking: object = None) -> float:
        """Return 0 where a call may be made now, else the seconds after which to ask again.

        Whoever gets 0 has to report with `succeeded`, `failed` or `gave_up`, the last two by the same name.
        """
        if self._state is Circuit.CLOSED:
            return 0.0
        with self._lock:
            wait_seconds = self._next_call_at_seconds - self._now()
            if wait_seconds > 0.0 and self.state is Circuit.OPEN:
                return wait_seconds
            if wait_seconds > 0.0 and self.state is Circuit.PROBING:
                return min(wait_seconds, self._ask_again_seconds())
            self._probe(asking)
            return 0.0

    def succeeded(self) -> None:
        """Take that a call reached the server, whatever it answered."""
        if self._failures or self._state is not Circuit.CLOSED:
            with self._lock:
                self._failures = self._openings = 0
                self._state = Circuit.CLOSED

    def failed(self, asking: object = None) -> None:
        """Take that a call did not reach the server, or lost it; a probe has failed only where it says so itself.

        A call from before the outage may end while another one probes, and knows nothing of now.
        """
        with self._lock:
            self._failures += 1
            is_probe = self._state is Circuit.PROBING and self._prober is asking
            if is_probe or (self._state is Circuit.CLOSED and self._failures >= self._most):
                self._open()

    def gave_up(self, asking: object = None) -> None:
        """Take that a call ended without telling anything about the server: after a probe another may go at once."""
        with self._lock:
            if self._state is Circuit.PROBING and self._prober is asking:
                self._state, self._next_call_at_seconds = Circuit.OPEN, self._now()

    def _ask_again_seconds(self) -> float:
        """Return when to ask again, since a probe's answer may come at any moment: the later, the more have asked."""
        self._asked += 1
        return min(_LATEST_ASK_AGAIN_SECONDS, _ASK_AGAIN_SECONDS * max(1.0, self._asked / _ASKS_AT_FIRST))

    def _probe(self, asking: object) -> None:
        if self._state is not Circuit.CLOSED:
            self._state, self._prober, self._asked = Circuit.PROBING, asking, 0
            self._next_call_at_seconds = self._now() + self._probe_seconds

    def _open(self) -> None:
        self._openings += 1
        longest = min(self._cap_seconds, self._base_seconds * 2.0 ** min(self._openings - 1, 63))
        half = full_jitter_seconds(1, base_seconds=longest / 2, cap_seconds=longest / 2)
        self._state, self._next_call_at_seconds = Circuit.OPEN, self._now() + longest / 2 + half
