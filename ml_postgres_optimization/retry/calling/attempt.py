"""One attempt of a call, and how far it has come."""

from __future__ import annotations

from contextvars import ContextVar, Token
from types import TracebackType

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.retry.admission import Slot
from ml_postgres_optimization.retry.calling.course import Course
from ml_postgres_optimization.retry.failures import Phase, causes

_current: ContextVar[Attempt | None] = ContextVar("genesis_attempt", default=None)


class Attempt:
    """One attempt; as a context it takes a failure after which there is another.

    Attributes
    ----------
    number : int
        From 1.
    has_committed : bool
        Whether a transaction of it that wrote something was committed, or may have been.
    """

    __slots__ = ("_course", "_is_over", "_is_to_be_repeated", "_left", "_slot", "_token", "has_committed", "number")

    def __init__(self, course: Course, slot: Slot | None) -> None:
        course.attempts += 1
        self._course = course
        self._slot = slot
        self._token: Token[Attempt | None] | None = None
        self._is_over = False
        self._is_to_be_repeated = False
        self.number = course.attempts
        self._left: tuple[tuple[BaseException, Phase], ...] = ()
        self.has_committed = False

    @property
    def is_to_be_repeated(self) -> bool:
        """Whether it has failed, and there is to be another.

        Raises
        ------
        UsageError
            If it was never entered, so that nobody knows.
        """
        if self._token is None:
            raise UsageError("An attempt was not entered, so nobody knows whether it failed.", _HOW_TO_ENTER)
        return self._is_to_be_repeated

    def __enter__(self) -> Attempt:
        if self._token is not None:
            raise UsageError("An attempt was entered twice.", _HOW_TO_ENTER)
        self._token = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        assert self._token is not None  # noqa: S101  (entered, or there would be no exit)
        _current.reset(self._token)
        self._is_over = True
        self._leave(kind, error, traceback)
        if error is None:
            self._course.succeeded()
        elif isinstance(error, Exception):
            self._is_to_be_repeated = self._course.failed(error, self._phase_of(error), self.has_committed)
        else:
            self._course.interrupted()
        return self._is_to_be_repeated

    def leave(self, error: BaseException, phase: Phase) -> None:
        """Take that a transaction was left by `error`, and how far it had come."""
        self._left += ((error, phase),)

    def _phase_of(self, error: BaseException) -> Phase:
        """Return how far the transaction had come that `error` comes from; unknown where it comes from none."""
        known = {id(left): phase for left, phase in self._left}
        return next((known[id(each)] for each in causes(error) if id(each) in known), Phase.UNKNOWN)

    def abandon(self) -> None:
        """Take that nobody will enter it any more."""
        if self._token is None:
            self._leave(GeneratorExit, GeneratorExit(), None)
            self._course.interrupted()

    def _leave(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._slot:
            self._slot.__exit__(kind, error, traceback)


_HOW_TO_ENTER = "Write: for attempt in caller.attempts(): with attempt: ..."


def current_attempt() -> Attempt | None:
    """Return the attempt that the caller is inside of; None where there is none."""
    attempt = _current.get()
    # a task that was started inside of an attempt and outlives it still has it in its context
    return None if attempt is None or attempt._is_over else attempt
