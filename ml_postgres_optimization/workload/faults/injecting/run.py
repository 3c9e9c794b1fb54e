"""One fault under way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from ml_postgres_optimization.errors import GenesisError
from ml_postgres_optimization.workload.faults.fault import Fault
from ml_postgres_optimization.workload.faults.ground import FaultGround
from ml_postgres_optimization.workload.faults.spell import Spell


@dataclass(frozen=True, slots=True)
class FaultRecord:
    """What is known of one fault, to be told and kept.

    Parameters
    ----------
    fault : Fault
    seed : int
        Of what it drew.
    began_seconds, ended_seconds : float or None
        Monotonic: when it was in force, and when everything was put back; None as long as that has not come, and
        where it never was in force.
    reached_total : int
        Sessions, connections or servers that it reached, known at its end; each kind says what it counts.
    failure : str or None
        One line, where it could not be done or was lost on the way.
    """

    fault: Fault
    seed: int = 0
    began_seconds: float | None = None
    ended_seconds: float | None = None
    reached_total: int = 0
    failure: str | None = None

    @property
    def kind(self) -> str:
        """What kind of fault it is."""
        return str(self.fault.kind)


Tell = Callable[[FaultRecord], None]


class FaultRun:
    """One fault, in a thread of its own; a context that ends it.

    Parameters
    ----------
    fault : Fault
    ground : FaultGround
    seed : int
    tell : callable, optional
        Receives its record when it is in force and when it has ended, in its thread. What it raises is kept in
        `FaultRun.telling_failed`, and disturbs nobody.

    Raises
    ------
    UsageError
        If the ground lacks what the fault needs.

    Notes
    -----
    The fault ends by itself when its time is over, when it is told to, or when the program's main thread has ended.
    Its thread is waited for in each case, so that everything is put back whatever ends the program, short of SIGKILL;
    then the server itself ends the sessions of the fault, and locks and connections with them.

    Examples
    --------
    ::

        with FaultRun.begin(LockStall(seconds=5.0), FaultGround(dsn)):
            ...
    """

    def __init__(self, fault: Fault, ground: FaultGround, *, seed: int = 0, tell: Tell | None = None) -> None:
        fault.check(ground)
        self._fault = fault
        self._ground = ground
        self._tell = tell
        self._spell = Spell(fault.seconds, seed=seed, on_begin=self._begun)
        self._record = FaultRecord(fault, seed)
        self._is_known = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._happen, name=f"fault-{fault.kind}", daemon=False)
        self.telling_failed: Exception | None = None

    @classmethod
    def begin(cls, fault: Fault, ground: FaultGround, *, seed: int = 0, tell: Tell | None = None) -> Self:
        """Begin a fault, and return when it is in force.

        Raises
        ------
        GenesisError, psycopg.Error
            If it could not be done.
        """
        run = cls(fault, ground, seed=seed, tell=tell).start()
        try:
            run._is_known.wait()
        except BaseException:
            run.end()
            raise
        if run._spell.began_seconds is None and run._error is not None:
            raise run._error
        return run

    def start(self) -> Self:
        """Begin, and do not wait for it."""
        self._thread.start()
        return self

    @property
    def record(self) -> FaultRecord:
        """What is known of it so far."""
        return self._record

    @property
    def has_ended(self) -> bool:
        """Whether everything is put back."""
        return self._thread.ident is not None and not self._thread.is_alive()

    def ask_to_end(self) -> None:
        """Tell it to end, and do not wait for it."""
        self._spell.end()

    def wait(self) -> FaultRecord:
        """Wait until its time is over and everything is put back."""
        try:
            self._thread.join()
        except BaseException:  # Ctrl-C: whoever waits goes on only when everything is put back
            self.ask_to_end()
            self._thread.join()
            raise
        return self._record

    def end(self) -> FaultRecord:
        """End it before its time, wait until everything is put back; harmless when it has ended already."""
        self.ask_to_end()
        return self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _happen(self) -> None:
        reached = 0
        try:
            if not self._spell.was_cut_short:
                reached = self._fault.happen(self._ground, self._spell)
        except Exception as error:  # told in the record; nobody in this thread could answer it
            self._error = error
        self._note(
            ended_seconds=time.monotonic(),
            reached_total=reached,
            failure=None if self._error is None else _in_one_line(self._error),
        )

    def _begun(self) -> None:
        self._note()

    def _note(
        self, *, ended_seconds: float | None = None, reached_total: int = 0, failure: str | None = None
    ) -> None:
        self._record = FaultRecord(
            self._fault,
            self._record.seed,
            self._spell.began_seconds,
            ended_seconds,
            reached_total=reached_total,
            failure=failure,
        )
        self._is_known.set()
        if self._tell is not None:
            try:
                self._tell(self._record)
            except Exception as error:  # anybody's code
                self.telling_failed = error


def _in_one_line(error: Exception) -> str:
    text = error.what if isinstance(error, GenesisError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())
