"""What one call has been through, and what comes next: decisions only, others do the waiting and the work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from ml_postgres_optimization.errors import CircuitOpen, CommitUnknown, DeadlinePassed, GenesisError, NotAdmitted
from ml_postgres_optimization.retry.admission import ConcurrencyLimiter
from ml_postgres_optimization.retry.backoff import full_jitter_seconds, lock_wait_seconds
from ml_postgres_optimization.retry.breaker import CircuitBreaker
from ml_postgres_optimization.retry.budget import RetryBudget
from ml_postgres_optimization.retry.calling.details import RetryDetails, RetryHook, tell
from ml_postgres_optimization.retry.calling.testing import bounded_attempts, bounded_wait
from ml_postgres_optimization.retry.deadline import seconds_left
from ml_postgres_optimization.retry.failures import Failure, Pace, Phase, Remedy, Rule, failure_of, rule_for
from ml_postgres_optimization.retry.policy import RetryPolicy

_ANOTHERS = Rule(Remedy.NONE, "it is no failure of the database")
_UNKNOWN = Rule(Remedy.RECONNECT, "nobody knows whether it was committed, and twice does no harm", Pace.RECONNECT)
_UNSEEN = (
    "and nobody saw whether something had been committed before: do the work inside transaction(connection), or say "
    "is_idempotent"
)
# An attempt that failed sooner has not stood in the queue of a lock (NOWAIT): nobody knows how long that is held.
_QUEUED_SECONDS = 0.01
_DONE_IN_PART = Rule(Remedy.NONE, "a transaction of this attempt was committed, and would be done twice")


@dataclass(frozen=True, slots=True)
class Terms:
    """What all calls of one caller share."""

    policy: RetryPolicy = field(default_factory=RetryPolicy)
    budget: RetryBudget = field(default_factory=RetryBudget)
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    limiter: ConcurrencyLimiter | None = None
    hooks: tuple[RetryHook, ...] = ()
    monotonic_seconds: Callable[[], float] = time.monotonic


class Course:
    """The attempts of one call.

    Parameters
    ----------
    name : str
        What is called, for hooks and errors.
    terms : Terms

    Raises
    ------
    DeadlinePassed
        If the caller's deadline is over already.

    Notes
    -----
    Of one call, so of one thread or task at a time.
    """

    __slots__ = (
        *("_began_seconds", "_by_rule", "_last_error", "_name", "_terms", "_until_seconds"),
        *("_wait_seconds", "_waited_seconds"),
        "attempts",
    )

    def __init__(self, name: str, terms: Terms) -> None:
        left_seconds = seconds_left()
        if left_seconds <= 0.0:
            raise DeadlinePassed(
                f"{name} was not called: its deadline passed {-left_seconds:.3f} s ago.",
                "Give it more time, or call it sooner.",
            )
        self._name = name
        self._terms = terms
        self._began_seconds = terms.monotonic_seconds()
        self._until_seconds = self._began_seconds + min(terms.policy.total_seconds, left_seconds)
        self._wait_seconds = self._waited_seconds = 0.0
        self._by_rule: dict[str, int] = {}
        self._last_error: Exception | None = None
        self.attempts = 0
        terms.budget.earn()

    def wait_seconds(self) -> float:
        """Return how long to wait before asking again; 0 where an attempt may be made now.

        Raises
        ------
        CircuitOpen
            If the server is left alone for longer than there is time.
        """
        if (back_off_seconds := self.back_off_seconds()) > 0.0:
            return back_off_seconds
        wait_seconds = self._terms.breaker.ask(self)
        if wait_seconds > self.left_seconds():
            raise CircuitOpen(
                f"{self._name} was not called{' again' if self.attempts else ''}: the server failed again and again, "
                f"and is left alone for now.",
                "See whether the server is up; a call after some seconds finds out.",
            ) from self._last_error
        return wait_seconds

    def back_off_seconds(self) -> float:
        """Return how long to wait after the failure, once; for those who ask `wait_seconds` only after that wait."""
        wait_seconds, self._wait_seconds = self._wait_seconds, 0.0
        return wait_seconds

    @contextmanager
    def being_admitted(self) -> Iterator[None]:
        """Take that who is refused or interrupted in a queue has told nothing about the server."""
        try:
            yield
        except NotAdmitted as refusal:
            self.interrupted()
            raise refusal from self._last_error
        except BaseException:
            self.interrupted()
            raise

    def succeeded(self) -> None:
        """Take that the attempt did its work."""
        self._terms.breaker.succeeded()

    def interrupted(self) -> None:
        """Take that the attempt was ended from outside: by Ctrl-C, or by the cancellation of its task."""
        self._terms.breaker.gave_up(self)

    def failed(self, error: Exception, phase: Phase, has_committed: bool) -> bool:
        """Take that the attempt failed, and tell whether another one is to be made.

        Raises
        ------
        CommitUnknown
            If it may have been committed, nobody knows, and doing it twice would do harm.
        """
        self._last_error = error
        failure = None if isinstance(error, GenesisError) else failure_of(error)
        rule = self._rule(failure, phase, has_committed)
        if isinstance(error, CommitUnknown) and self._terms.policy.is_idempotent:
            failure, rule = Failure(None, error.what), _UNKNOWN
        self._tell_breaker(failure, rule)
        refusal = self._refusal(failure, rule)
        self._tell(error, failure, phase, refusal or rule.why, is_retried=refusal is None)
        if refusal is None:
            return True
        error.add_note(f"Not retried: {refusal} (attempt {self.attempts}, {self._elapsed_seconds():.3f} s).")
        if rule.remedy is Remedy.VERIFY and not self._terms.policy.is_idempotent:
            raise _unknown(self._name, phase) from error
        return False

    def _rule(self, failure: Failure | None, phase: Phase, has_committed: bool) -> Rule:
        if failure is None:
            return _ANOTHERS
        if has_committed and not self._terms.policy.is_idempotent:
            return _DONE_IN_PART
        rule = rule_for(failure, phase)
        is_unseen = phase is Phase.UNKNOWN and rule.remedy is not Remedy.VERIFY and not rule.is_before_anything
        if is_unseen and rule.remedy is not Remedy.NONE and not self._terms.policy.is_idempotent:
            return replace(rule, remedy=Remedy.NONE, why=f"{rule.why}, {_UNSEEN}")
        return rule

    def _refusal(self, failure: Failure | None, rule: Rule) -> str | None:
        """Return why there is no other attempt; None where there is, which is paid for then, and waits."""
        policy = self._terms.policy
        if rule.remedy is Remedy.NONE or failure is None:
            return rule.why
        if rule.permission and rule.permission not in policy.permissions:
            return f"{rule.why}; {rule.permission} is not among the policy's permissions"
        if rule.remedy is Remedy.VERIFY and not policy.is_idempotent:
            return f"{rule.why}, and nobody knows whether it was committed"
        if rule.most is not None and self._by_rule.get(failure.kind, 0) >= rule.most:
            return f"{rule.why} again"
        if self.attempts >= bounded_attempts(policy.attempts):
            return f"{rule.why}, and this was the last attempt"
        return self._refusal_of_waiting(failure, rule)

    def _refusal_of_waiting(self, failure: Failure, rule: Rule) -> str | None:
        repetition = self._by_rule.get(failure.kind, 0) + 1
        wait_seconds = bounded_wait(self._drawn_seconds(rule.pace, repetition))
        if wait_seconds >= self.left_seconds():
            return f"{rule.why}, and the time is over"
        if not self._terms.budget.pay():
            return f"{rule.why}, and the budget for repetitions is used up"
        self._by_rule[failure.kind] = repetition
        self._wait_seconds = wait_seconds
        self._waited_seconds += wait_seconds
        return None

    def _drawn_seconds(self, pace: Pace, repetition: int) -> float:
        pause, elapsed_seconds = self._terms.policy.pause(pace), self._elapsed_seconds()
        was_queued = elapsed_seconds - self._waited_seconds >= _QUEUED_SECONDS * self.attempts
        if pace is Pace.LOCK and was_queued:
            return lock_wait_seconds(
                repetition,
                base_seconds=pause.base_seconds,
                cap_seconds=pause.cap_seconds,
                elapsed_seconds=elapsed_seconds,
            )
        return full_jitter_seconds(repetition, base_seconds=pause.base_seconds, cap_seconds=pause.cap_seconds)

    def _tell_breaker(self, failure: Failure | None, rule: Rule) -> None:
        if failure is None:
            self._terms.breaker.gave_up(self)
        elif rule.is_unreachable:
            self._terms.breaker.failed(self)
        else:
            self._terms.breaker.succeeded()

    def _tell(self, error: Exception, failure: Failure | None, phase: Phase, why: str, *, is_retried: bool) -> None:
        details = RetryDetails(
            name=self._name,
            attempt=self.attempts,
            error=error,
            sqlstate=failure.sqlstate if failure else None,
            error_class=failure.error_class if failure else None,
            phase=phase,
            is_retried=is_retried,
            why=why,
            wait_seconds=self._wait_seconds if is_retried else 0.0,
            elapsed_seconds=self._elapsed_seconds(),
        )
        tell(self._terms.hooks, details)

    def _elapsed_seconds(self) -> float:
        return self._terms.monotonic_seconds() - self._began_seconds

    def left_seconds(self) -> float:
        """Return how much time there is still."""
        return self._until_seconds - self._terms.monotonic_seconds()


def _unknown(name: str, phase: Phase) -> CommitUnknown:
    if phase is Phase.UNKNOWN:
        return CommitUnknown(
            f"{name} lost its connection, and may have been committed: nobody saw how far it had come.",
            "Do its work inside transaction(connection), or say that doing it twice does no harm: is_idempotent.",
        )
    return CommitUnknown(
        f"{name} lost its connection after COMMIT was sent, and nobody could tell whether it was committed.",
        "Look for what it was to write before doing it again; an operation key answers the question.",
    )
