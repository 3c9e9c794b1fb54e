"""An operation that has been begun: how its attempts ended, and whether there is another. Decisions only."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from ml_postgres_optimization.errors import CircuitOpen, CommitUnknown
from ml_postgres_optimization.retry import CircuitBreaker, Phase, Remedy, RetryBudget, rule_for
from ml_postgres_optimization.retry.calling import Course, Terms
from ml_postgres_optimization.workload.mix import Mix
from ml_postgres_optimization.workload.plan import LoadRetries
from ml_postgres_optimization.workload.process.session import failure_in

_CANCELLED = b"57014"
_NOT_CONNECTED = b"08001"


@dataclass(frozen=True, slots=True)
class Ending:
    """How an operation failed.

    Parameters
    ----------
    sqlstate : bytes
    is_ambiguous : bool
        Whether it may have been committed all the same.
    needs_session : bool
        Whether another attempt makes sense in another session only.
    """

    sqlstate: bytes
    is_ambiguous: bool = False
    needs_session: bool = False


# where the circuit was open for longer than there was time
_NEVER_BEGUN = Ending(_NOT_CONNECTED)


def ending_of(error: BaseException, phase: Phase) -> Ending:
    """Return how an operation ended that had come to `phase` when `error` struck."""
    if isinstance(error, asyncio.CancelledError):
        return Ending(_CANCELLED, phase is Phase.COMMIT_SENT)
    failure = failure_in(error)
    remedy = rule_for(failure, phase).remedy
    return Ending(failure.code.encode(), remedy is Remedy.VERIFY, remedy is Remedy.RECONNECT)


class Call:
    """An operation that is repeated where it fails in a way that passes.

    Parameters
    ----------
    course : Course
    arm : str
        Whose operation it is, where the sessions are divided.

    Attributes
    ----------
    ending : Ending
        That of its last attempt; ambiguous where any of them is.
    start_seconds : float
        Monotonic time of its first attempt; 0 before.
    """

    __slots__ = ("_course", "arm", "ending", "start_seconds")

    def __init__(self, course: Course, arm: str) -> None:
        self._course = course
        self.arm = arm
        self.ending = _NEVER_BEGUN
        self.start_seconds = 0.0

    @property
    def is_repetition(self) -> bool:
        """Whether an attempt was made before."""
        return self._course.attempts > 0

    def wait_seconds(self) -> float | None:
        """Return how long to wait before asking again, 0 where an attempt is to be made now; None where none is."""
        if self.is_repetition and self._course.left_seconds() <= 0.0:
            return None
        try:
            return self._course.wait_seconds()
        except CircuitOpen:
            return None

    def begin(self, now_seconds: float) -> float:
        """Take that an attempt begins, and return when the first one did."""
        if not self.is_repetition:
            self.start_seconds = now_seconds
        self._course.attempts += 1
        return self.start_seconds

    def succeeded(self) -> None:
        """Take that the attempt did its work."""
        self._course.succeeded()

    def interrupted(self) -> None:
        """Take that there is no attempt after all, or none whose end tells anything."""
        self._course.interrupted()

    def failed(self, error: Exception, phase: Phase) -> float | None:
        """Take that the attempt failed, and return the wait before the next one; None where there is none."""
        ending = ending_of(error, phase)
        self.ending = replace(ending, is_ambiguous=ending.is_ambiguous or self.ending.is_ambiguous)
        try:
            is_repeated = self._course.failed(error, phase, has_committed=False)
        except CommitUnknown:
            return None
        return self._course.back_off_seconds() if is_repeated else None


class Calls:
    """What the operations of one process share: a budget, a circuit, and how often each kind may be repeated.

    Parameters
    ----------
    retries : LoadRetries
    mix : Mix
    """

    def __init__(self, retries: LoadRetries, mix: Mix) -> None:
        budget = RetryBudget(ratio=retries.budget_ratio, reserve=retries.budget_reserve)
        terms = Terms(retries.policy, budget, CircuitBreaker(failures=retries.breaker_failures))
        of_reads = replace(terms, policy=replace(retries.policy, is_idempotent=True))
        # no write of ours does no harm when it is done twice
        terms = replace(terms, policy=replace(retries.policy, is_idempotent=False))
        self._terms = tuple(
            of_reads if name in mix.read_only else terms if name in mix.transactional else None for name in mix.names
        )
        self._names = mix.names

    def begin(self, kind_index: int, arm: str) -> Call | None:
        """Return the call of an operation that is about to be begun; None where its kind is never repeated."""
        terms = self._terms[kind_index]
        return None if terms is None else Call(Course(self._names[kind_index], terms), arm)
