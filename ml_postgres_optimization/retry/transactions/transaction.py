"""A transaction that knows how far it has come, and finds out what became of its COMMIT."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from types import TracebackType
from typing import Any

from ml_postgres_optimization.errors import AlreadyApplied, CommitUnknown, UsageError
from ml_postgres_optimization.retry.calling import Attempt, current_attempt
from ml_postgres_optimization.retry.deadline import seconds_left
from ml_postgres_optimization.retry.failures import Phase, failure_of, is_refusal
from ml_postgres_optimization.retry.transactions.drivers import Session, session_of
from ml_postgres_optimization.retry.transactions.outcome import CommitToken, Outcome, settle, token_of
from ml_postgres_optimization.retry.transactions.steps import Step, take, take_async

OPERATION_KEYS_TABLE = """\
CREATE TABLE IF NOT EXISTS genesis_operation_keys (
    key text PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""
"""The table that operation keys are written to, in any schema on the search path of those who write."""

_RECONNECT = "See to it that reconnect opens a connection, or leave it out."
_WRITE_KEY = "INSERT INTO genesis_operation_keys (key) VALUES ({}) ON CONFLICT DO NOTHING RETURNING true"


class Transaction:
    """A transaction on a connection of psycopg 3, psycopg 2, asyncpg or SQLAlchemy; made by `transaction`."""

    def __init__(
        self, connection: Any, key: str | None, reconnect: Callable[[], Any] | None, settle_seconds: float
    ) -> None:
        self._connection = connection
        self._session: Session = session_of(connection)
        self._key = key
        self._reconnect = reconnect or self._session.another
        self._settle_seconds = settle_seconds
        self._attempt: Attempt | None = None
        self._context: Any = None

    def __enter__(self) -> Transaction:
        self._require(is_async=False)
        take(self._begin())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return take(self._end(kind, error, traceback))

    async def __aenter__(self) -> Transaction:
        self._require(is_async=True)
        await take_async(self._begin())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return await take_async(self._end(kind, error, traceback))

    def _require(self, *, is_async: bool) -> None:
        if self._session.is_async != is_async:
            word = "async with" if self._session.is_async else "with"
            raise UsageError(
                f"{type(self._connection).__name__} is entered in the wrong way.", f"Write: {word} transaction(...)"
            )
        if self._session.is_in_transaction():
            raise UsageError(
                "The connection is in a transaction already, which began before anybody watched.",
                "Commit or roll back first; inside of transaction(...) use the driver's savepoints.",
            )

    def _begin(self) -> Generator[Step, Any, None]:
        self._attempt = current_attempt()
        if self._attempt and self._attempt.number > 1 and self._session.is_closed():
            raise UsageError(
                f"Attempt {self._attempt.number} uses a connection that is closed already.",
                "Open the connection, or take it from the pool, inside of what is retried.",
            )
        self._context = self._session.transaction()
        try:
            yield self._enter
        except BaseException as error:
            self._left_by(error, Phase.BEGINNING)
            raise
        try:
            yield self._session.require_transaction
            if self._key is not None:
                yield from self._write_key(self._key)
        except BaseException as error:
            yield from self._roll_back(type(error), error, error.__traceback__)
            raise

    def _write_key(self, key: str) -> Generator[Step, Any, None]:
        is_new = yield lambda: self._session.row(_WRITE_KEY, key)
        if not is_new:
            raise AlreadyApplied(
                f"An operation with the key {key!r} was carried out before.",
                "Take it for done; another operation needs another key.",
            )

    def _end(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Generator[Step, Any, bool]:
        if error is not None:
            return (yield from self._roll_back(kind, error, traceback))
        try:
            yield self._session.flush
            token = yield from token_of(self._session, self._key)
        except BaseException as failed:
            # the transaction has failed before, and somebody swallowed that: COMMIT would roll it back in silence
            yield from self._roll_back(type(failed), failed, failed.__traceback__)
            raise
        yield from self._commit(token)
        return False

    def _commit(self, token: CommitToken | None) -> Generator[Step, Any, None]:
        had_committed = self._may_have_committed(bool(token))
        try:
            yield lambda: self._leave(None, None, None)
        except Exception as error:
            if not (yield from self._is_committed(error, token)):
                self._left_by(error, Phase.ROLLED_BACK)
                if self._attempt:
                    self._attempt.has_committed = had_committed
                raise
        except BaseException as interruption:
            interruption.add_note("COMMIT was sent, and its reply not waited for: it may have been carried out.")
            raise

    def _may_have_committed(self, has_written: bool) -> bool:
        """Take that COMMIT is about to be sent, and return what was known of this attempt before."""
        if self._attempt is None:
            return False
        before, self._attempt.has_committed = self._attempt.has_committed, self._attempt.has_committed or has_written
        return before

    def _is_committed(self, error: Exception, token: CommitToken | None) -> Generator[Step, Any, bool]:
        """Tell whether the transaction is committed in spite of an error.

        Raises
        ------
        CommitUnknown
            If nobody can tell.
        """
        failure = failure_of(error)
        if token is None or (failure is not None and is_refusal(failure)):
            return False
        outcome = yield from self._outcome(token)
        if outcome is Outcome.UNKNOWN:
            raise CommitUnknown(
                f"The reply to COMMIT was lost, and what became of transaction {token.transaction_id} is not known.",
                "Look for what it was to write before doing it again; an operation key answers the question.",
            ) from error
        return outcome is Outcome.COMMITTED

    def _outcome(self, token: CommitToken) -> Generator[Step, Any, Outcome]:
        seconds = min(self._settle_seconds, seconds_left())
        try:
            return (yield from settle(token, self._session, self._reconnect, seconds))
        except Exception as error:
            said, hint = (error.what, error.next_step) if isinstance(error, UsageError) else (repr(error), _RECONNECT)
            raise CommitUnknown(f"The reply to COMMIT was lost, and nobody can ask: {said}", hint) from error

    def _roll_back(
        self, kind: type[BaseException] | None, error: BaseException, traceback: TracebackType | None
    ) -> Generator[Step, Any, bool]:
        """Let the driver roll back; where it cannot, the connection is gone, and the server does."""
        self._left_by(error, Phase.IN_TRANSACTION)
        is_handled = False
        with suppress(Exception):
            is_handled = yield lambda: self._leave(kind, error, traceback)
        return bool(is_handled)

    def _enter(self) -> Any:
        return self._context.__aenter__() if self._session.is_async else self._context.__enter__()

    def _leave(self, *error: Any) -> Any:
        return self._context.__aexit__(*error) if self._session.is_async else self._context.__exit__(*error)

    def _left_by(self, error: BaseException, phase: Phase) -> None:
        if self._attempt:
            self._attempt.leave(error, phase)


def transaction(
    connection: Any,
    *,
    key: str | None = None,
    reconnect: Callable[[], Any] | None = None,
    settle_seconds: float = 10.0,
) -> Transaction:
    """Begin a transaction on `connection`, commit it at the end of the block, roll it back on any error.

    Parameters
    ----------
    connection : connection of psycopg 3, psycopg 2, asyncpg or SQLAlchemy
        Idle. Enter it with ``async with`` where the connection is of that kind.
    key : str, optional
        Names the operation, in all attempts and for all time: it is written with the transaction (to
        ``genesis_operation_keys``, see `OPERATION_KEYS_TABLE`), and tells what became of it where the server's own
        record cannot.
    reconnect : callable, optional
        Opens another connection to the same place, to ask what became of a COMMIT; the driver's record of where the
        connection leads serves when absent, which asyncpg does not have.
    settle_seconds : float
        How long to ask at most, within the caller's deadline.

    Raises
    ------
    CommitUnknown
        If the reply to COMMIT was lost, and nobody could tell what became of it.
    AlreadyApplied
        If an operation with this key was carried out before.
    UsageError
        If the connection is none, in a transaction, in pipeline mode, or one that an earlier attempt lost.

    Notes
    -----
    It costs one round trip more than the driver's own: the number of the transaction is asked before COMMIT. What is
    written elsewhere (foreign tables, ``dblink``) is not seen, nor is a NOTIFY alone, which may be sent twice.
    Outside of a retried call it finds out what became of its COMMIT all the same.
    """
    return Transaction(connection, key, reconnect, settle_seconds)
