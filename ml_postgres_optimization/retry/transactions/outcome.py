"""Find out what became of a COMMIT whose reply was lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from ml_postgres_optimization.retry.backoff import full_jitter_seconds
from ml_postgres_optimization.retry.failures import failure_of
from ml_postgres_optimization.retry.transactions.drivers import Session, session_of, sleeping
from ml_postgres_optimization.retry.transactions.steps import Step

_BASE_SECONDS, _CAP_SECONDS = 0.05, 1.0
_IN_THE_FUTURE = "22023"

# Which start of which server this is. The statistics' reset tells a crash after which the postmaster lived on.
_INCARNATION = (
    "(SELECT system_identifier::text FROM pg_control_system()),"
    " extract(epoch FROM pg_postmaster_start_time())::text || ' '"
    " || coalesce((SELECT extract(epoch FROM stats_reset)::text FROM pg_stat_wal), '')"
)
_TOKEN = f"SELECT pg_current_xact_id_if_assigned()::text, {_INCARNATION}"
_PLACE = f"SELECT pg_is_in_recovery(), {_INCARNATION}, set_config('statement_timeout', '5000', false)"
_STATUS = "SELECT pg_xact_status({}::text::xid8)"
_KEY_IS_THERE = "SELECT EXISTS (SELECT FROM genesis_operation_keys WHERE key = {})"


class Outcome(StrEnum):
    """What became of a COMMIT."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class CommitToken:
    """By what a transaction is known after its connection is gone."""

    transaction_id: str
    """An xid8."""
    system_identifier: str
    """Of the cluster."""
    incarnation: str
    """Of the server's start, a restart after a crash included."""
    key: str | None = None
    """The operation key that it wrote."""


def token_of(session: Session, key: str | None) -> Generator[Step, Any, CommitToken | None]:
    """Return by what the session's transaction will be known; None where it has written nothing."""
    transaction_id, system_identifier, incarnation = yield lambda: session.row(_TOKEN)
    return CommitToken(transaction_id, system_identifier, incarnation, key) if transaction_id else None


def settle(
    token: CommitToken, session: Session, reconnect: Callable[[], Any], seconds: float
) -> Generator[Step, Any, Outcome]:
    """Ask until it is known what became of a transaction, or until `seconds` are over.

    Parameters
    ----------
    token : CommitToken
    session : Session
        The lost one: whether others are awaited is as with it.
    reconnect : callable
        Opens a connection to the same place.
    seconds : float

    Notes
    -----
    "aborted" is always true: a transaction whose commit had reached the disk keeps its number. "committed" may be
    another transaction's: what a crash took from the log is numbered anew afterwards, and so it is on a standby that
    was promoted without having received it. So that word counts only while the server has not been started since;
    after that, the operation key decides, which was written in the same transaction.

    References
    ----------
    https://www.postgresql.org/docs/current/functions-info.html, "Transaction ID and Snapshot Information Functions".
    docs/decisions/0027-retries.md: numbers given twice, seen.
    """
    until_seconds = time.monotonic() + seconds
    asked = 0
    while True:
        outcome = yield from _asked_in_a_new_session(token, reconnect)
        asked += 1
        pause_seconds = full_jitter_seconds(asked, base_seconds=_BASE_SECONDS, cap_seconds=_CAP_SECONDS)
        if outcome is not None or time.monotonic() + pause_seconds >= until_seconds:
            return outcome or Outcome.UNKNOWN
        yield partial(sleeping, session, pause_seconds)


def _asked_in_a_new_session(token: CommitToken, reconnect: Callable[[], Any]) -> Generator[Step, Any, Outcome | None]:
    """Return what another session says; None where that may be different later."""
    try:
        connection = yield reconnect
    except Exception as error:
        if failure_of(error) is None and not isinstance(error, OSError):
            raise
        return None
    session = session_of(connection)
    try:
        return (yield from _asked(token, session))
    except Exception as error:
        if failure_of(error) is None:
            raise
        return None
    finally:
        with suppress(Exception):
            yield session.close


def _asked(token: CommitToken, session: Session) -> Generator[Step, Any, Outcome | None]:
    is_standby, system_identifier, incarnation, _ = yield lambda: session.row(_PLACE)
    if is_standby or system_identifier != token.system_identifier:
        return None
    status = yield from _status(token, session)
    if status == "in progress":
        return None
    if status == "aborted":
        return Outcome.ABORTED
    if status == "committed" and incarnation == token.incarnation:
        return Outcome.COMMITTED
    if token.key is None:
        return Outcome.UNKNOWN
    (is_there,) = yield partial(session.row, _KEY_IS_THERE, token.key)
    return Outcome.COMMITTED if is_there else Outcome.ABORTED


def _status(token: CommitToken, session: Session) -> Generator[Step, Any, str | None]:
    """Return the status of its number; None where the server has forgotten it."""
    try:
        (status,) = yield lambda: session.row(_STATUS, token.transaction_id)
    except Exception as error:
        failure = failure_of(error)
        if failure is None or failure.sqlstate != _IN_THE_FUTURE:
            raise
        # the server never gave that number, or lost it in a crash
        return "aborted"
    return status  # type: ignore[no-any-return]
