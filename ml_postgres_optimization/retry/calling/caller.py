"""Call functions until they succeed, or until trying again makes no sense: the three doors."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, nullcontext
from types import AsyncGeneratorType, GeneratorType
from typing import Any, ParamSpec, TypeVar, cast, overload

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.retry.admission import ConcurrencyLimiter, Slot
from ml_postgres_optimization.retry.breaker import CircuitBreaker
from ml_postgres_optimization.retry.budget import RetryBudget
from ml_postgres_optimization.retry.calling.attempt import Attempt, current_attempt
from ml_postgres_optimization.retry.calling.course import Course, Terms
from ml_postgres_optimization.retry.calling.details import RetryHook
from ml_postgres_optimization.retry.policy import RetryPolicy

_GENERATORS = (GeneratorType, AsyncGeneratorType)
P = ParamSpec("P")
R = TypeVar("R")


class RetryingCaller:
    """Call functions, and call them again where a failure will pass and doing it twice does no harm.

    Parameters
    ----------
    policy : RetryPolicy, optional
    budget : RetryBudget, optional
        One for all that call the same server; its own when absent.
    breaker : CircuitBreaker, optional
        One for each server; its own when absent.
    limiter : ConcurrencyLimiter, optional
        Each attempt takes a slot of it, and waits for one within the caller's time; everybody goes in when absent.
    hooks : tuple of RetryHook
    sleep : callable
        How threads wait; tasks wait with ``asyncio.sleep``.
    monotonic_seconds : callable
        The time.

    Notes
    -----
    What is called should be one transaction, begun and committed inside, on a connection that is opened or taken from
    its pool inside. It is repeated as a whole; a single statement of a transaction is never repeated. What is called
    inside of an attempt is not retried by itself but with the attempt, so that attempts do not multiply. When there
    is no other attempt, the driver's error goes to the caller as it is, with a note that says why. Thread safe.

    Examples
    --------
    >>> caller = RetryingCaller()
    >>> caller.call(max, 1, 2)
    2
    >>> for attempt in caller.attempts("a transfer"):
    ...     with attempt:
    ...         total = 40 + 2
    >>> total
    42
    >>> @caller.retry
    ... def answer():
    ...     return 42
    >>> answer()
    42
    """

    def __init__(
        self,
        policy: RetryPolicy | None = None,
        *,
        budget: RetryBudget | None = None,
        breaker: CircuitBreaker | None = None,
        limiter: ConcurrencyLimiter | None = None,
        hooks: tuple[RetryHook, ...] = (),
        sleep: Callable[[float], None] = time.sleep,
        monotonic_seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._terms = Terms(
            policy=policy or RetryPolicy(),
            budget=budget or RetryBudget(),
            breaker=breaker or CircuitBreaker(monotonic_seconds=monotonic_seconds),
            limiter=limiter,
            hooks=hooks,
            monotonic_seconds=monotonic_seconds,
        )
        self._sleep = sleep

    @property
    def breaker(self) -> CircuitBreaker:
        """Whether calls go through."""
        return self._terms.breaker

    def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what ``function(*args, **kwargs)`` returns, in the end.

        Raises
        ------
        CommitUnknown, CircuitOpen, NotAdmitted, DeadlinePassed
        UsageError
            For a coroutine function or a generator.
        Exception
            What the function raised last.
        """
        for attempt in self.attempts(_name(function)):
            with attempt:
                return _no_promise(function(*args, **kwargs))
        raise AssertionError  # an attempt returns, raises, or is followed by another

    async def call_async(self, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what ``await function(*args, **kwargs)`` returns, in the end; as `call`."""
        async for attempt in self.attempts_async(_name(function)):
            with attempt:
                result = function(*args, **kwargs)
                return await result if inspect.isawaitable(result) else result
        raise AssertionError  # as above

    def attempts(self, name: str = "the call") -> Iterator[AbstractContextManager[Attempt | None]]:
        """Yield attempts to be entered, until one succeeds or raises."""
        if current_attempt():
            yield nullcontext()
            return
        course, limiter = Course(name, self._terms), self._terms.limiter
        while True:
            while wait_seconds := course.wait_seconds():
                self._sleep(wait_seconds)
            attempt = Attempt(course, _admitted(course, limiter) if limiter else None)
            try:
                yield attempt
            finally:
                attempt.abandon()
            if not attempt.is_to_be_repeated:
                return

    async def attempts_async(self, name: str = "the call") -> AsyncIterator[AbstractContextManager[Attempt | None]]:
        """Yield attempts to be entered with a plain ``with``, until one succeeds or raises."""
        if current_attempt():
            yield nullcontext()
            return
        course, limiter = Course(name, self._terms), self._terms.limiter
        while True:
            while wait_seconds := course.wait_seconds():
                await asyncio.sleep(wait_seconds)
            attempt = Attempt(course, await _admitted_later(course, limiter) if limiter else None)
            try:
                yield attempt
            finally:
                attempt.abandon()
            if not attempt.is_to_be_repeated:
                return

    def retry(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return `function`, retried at every call; plain or a coroutine function.

        Raises
        ------
        UsageError
            For a generator, which cannot take back what it has yielded.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise UsageError(
                f"{_name(function)} is a generator, and cannot take back what it has yielded.",
                "Retry a function that returns all of it, or each piece by itself.",
            )
        if inspect.iscoroutinefunction(function):
            return cast("Callable[P, R]", self._retried_coroutine(function))

        @functools.wraps(function)
        def retried(*args: P.args, **kwargs: P.kwargs) -> R:
            return self.call(function, *args, **kwargs)

        return retried

    def _retried_coroutine(self, function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Awaitable[R]]:
        @functools.wraps(function)
        async def retried(*args: P.args, **kwargs: P.kwargs) -> R:
            return await self.call_async(function, *args, **kwargs)

        return retried


@overload
def retry(function: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def retry(
    *, policy: RetryPolicy | None = None, hooks: tuple[RetryHook, ...] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def retry(
    function: Callable[P, R] | None = None,
    /,
    *,
    policy: RetryPolicy | None = None,
    hooks: tuple[RetryHook, ...] = (),
) -> Callable[P, R] | Callable[[Callable[P, R]], Callable[P, R]]:
    """Retry a function at every call, with a budget and a circuit of its own.

    Functions that call the same server should share a `RetryingCaller`, and be decorated with its `retry`.

    Examples
    --------
    >>> @retry
    ... def answer():
    ...     return 42
    >>> answer()
    42
    >>> @retry(policy=RetryPolicy(attempts=3, is_idempotent=True))
    ... def look():
    ...     return "seen"
    >>> look()
    'seen'
    """
    caller = RetryingCaller(policy, hooks=hooks)
    return caller.retry(function) if function else caller.retry


def _name(function: Callable[..., object]) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


def _admitted(course: Course, limiter: ConcurrencyLimiter) -> Slot:
    with course.being_admitted():
        return limiter.acquire(course.left_seconds())


async def _admitted_later(course: Course, limiter: ConcurrencyLimiter) -> Slot:
    with course.being_admitted():
        return await limiter.acquire_async(course.left_seconds())


def _no_promise(result: R) -> R:
    """Return a result that is there, not one that has to be awaited, whose failures would come too late."""
    if hasattr(type(result), "__await__") or isinstance(result, _GENERATORS):
        if inspect.iscoroutine(result):
            result.close()
        raise UsageError(
            f"What was called returned {type(result).__name__}, whose work begins only later.",
            "Await call_async for a coroutine function; retry no generator.",
        )
    return result
