"""What a soak records beside its windows: what it uses itself, and what is dear to read of the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

from ml_postgres_optimization.errors import TargetError
from ml_postgres_optimization.soak.interval import Event, EventKind
from ml_postgres_optimization.target.postgres.collector import Stock
from ml_postgres_optimization.telemetry import Clock
from ml_postgres_optimization.workload.process.garbage import GarbageTimer

STOCK_SECONDS = 60.0
_NO_STOCK = "anything of the server that is read once a minute"
# Counters of processor time, told as cores in use since the last interval.
_CORES = {"runner.cpu_seconds_total": "runner.cores", "client.cpu_seconds_total": "client.cores"}


class Gauges:
    """Read a run's own processes in every interval, and the server's stock once a minute.

    Parameters
    ----------
    clock : Clock
    own : callable
        Returns what the runner and its processes use.
    stock : callable
        Takes stock of the server; a `TargetError` means that it cannot be seen now, an OSError that this machine has
        no file or memory left for it, say, which ends no run.

    Notes
    -----
    A context manager: it counts the time that the runner's own collection of garbage takes. What cannot be seen is
    told once, as an event, and what may be there the next time where it was not; a figure that is absent was not
    measured, and is never 0.
    """

    def __init__(self, clock: Clock, own: Callable[[], Mapping[str, float]], stock: Callable[[], Stock]) -> None:
        self._clock = clock
        self._own = own
        self._stock = stock
        self._due_seconds = clock.monotonic_seconds()
        self._before: tuple[float, Mapping[str, float]] = (self._due_seconds, {})
        self._told: set[tuple[str, bool]] = set()
        self._missed: set[str] = set()
        self._events: list[Event] = []
        self._garbage = GarbageTimer()

    def __enter__(self) -> Self:
        self._garbage.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._garbage.__exit__(*error)

    def __call__(self) -> Mapping[str, float]:
        """Return the figures of this interval."""
        now, own = self._clock.monotonic_seconds(), self._own()
        values = {**own, **self._cores(now, own), "runner.garbage_seconds": self._garbage.take_seconds()}
        if now >= self._due_seconds:
            # the last one may be late; the next is due as long after it all the same
            self._due_seconds = now + STOCK_SECONDS
            values.update(self._taken())
        return values

    def events(self) -> tuple[Event, ...]:
        """Return what there is to tell since the last call."""
        told, self._events = tuple(self._events), []
        return told

    def _cores(self, now: float, own: Mapping[str, float]) -> dict[str, float]:
        (since, before), self._before = self._before, (now, own)
        growth = {name: own[name] - before[name] for name in _CORES if name in own and name in before}
        # where a process has ended, what it used is gone from the sum
        return {_CORES[name]: delta / (now - since) for name, delta in growth.items() if delta >= 0 and now > since}

    def _taken(self) -> Mapping[str, float]:
        try:
            stock = self._stock()
        except TargetError:  # the interval says that the server is away
            return {}
        except OSError as error:
            stock = Stock({}, {_NO_STOCK: error.strerror or str(error)}, {_NO_STOCK})
        else:
            self._missed.discard(_NO_STOCK)
        if new := self._untold(stock):
            text = "; ".join(f"{name} ({reason})" for name, reason in new.items())
            self._events.append(Event(EventKind.RUNNER, f"Not recorded here: {text}.", self._clock.now()))
        return stock.values

    def _untold(self, stock: Stock) -> dict[str, str]:
        """Return what is missing for good, or was when it was last asked for as well, and was not told as such."""
        seen = {name.partition(".")[0] for name in stock.values}
        before, self._missed = self._missed, (self._missed - seen) | set(stock.passing)
        lasting = {name: name not in stock.passing for name in stock.unseen}
        new = {
            name: reason
            for name, reason in stock.unseen.items()
            if (lasting[name] or name in before) and (name, lasting[name]) not in self._told
        }
        self._told.update((name, lasting[name]) for name in new)
        return new
