"""What may be done about each failure: the table of SQLSTATEs, and of what has none."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum

from ml_postgres_optimization.retry.failures.failure import Failure, Lost
from ml_postgres_optimization.retry.failures.phase import Phase


class Remedy(StrEnum):
    """What helps against a failure."""

    REPEAT = "repeat"
    """Do the whole transaction again; the session is good after a ROLLBACK."""
    RECONNECT = "reconnect"
    """Do the whole transaction again, in a new session."""
    VERIFY = "verify"
    """A COMMIT may have been carried out: find out first."""
    NONE = "none"
    """Doing it again would fail again, or do harm."""


class Pace(StrEnum):
    """How soon another attempt makes sense."""

    CONFLICT = "conflict"
    """As soon as the others are out of the way: milliseconds."""
    LOCK = "lock"
    """When somebody has let go of a lock: tenths of a second."""
    RECONNECT = "reconnect"
    """When a server is up again: seconds."""
    SHORTAGE = "shortage"
    """When others have gone: many seconds."""


class Permission(StrEnum):
    """What the caller must have said before a failure is tried again."""

    KEYS_FROM_READS = "keys_from_reads"
    """The key that exists already was chosen from what was read, so that another attempt chooses another."""
    REPEATS_CANCELLED = "repeats_cancelled"
    """A statement that ran into its time limit may fare better a second time."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What may be done about a failure."""

    remedy: Remedy
    why: str
    """As it follows "not retried: " or "retried: "."""
    pace: Pace = Pace.CONFLICT
    most: int | None = None
    """How many repetitions at most; None where only the policy bounds them."""
    permission: Permission | None = None
    """What the caller must have said before."""
    may_have_committed: bool = False
    """Whether the session is gone, so that nobody knows what became of a COMMIT that was on its way."""
    is_unreachable: bool = False
    """Whether it says of the server that it is not there, or not yet."""
    is_before_anything: bool = False
    """Whether it strikes while a connection is opened or lent, before anything is sent."""


_NEVER_SENT = Rule(
    Remedy.RECONNECT, "the server was not reached", Pace.RECONNECT, is_unreachable=True, is_before_anything=True
)
_LOST = replace(_NEVER_SENT, why="the connection was lost", may_have_committed=True, is_before_anything=False)
_FULL = Rule(Remedy.RECONNECT, "there are too many connections", Pace.SHORTAGE, is_before_anything=True)
_OF_THE_APPLICATION = Rule(Remedy.NONE, "doing it again would fail again")
_BROKEN = Rule(Remedy.NONE, "the server has an internal error or a damaged file: keep the evidence")

_UNANSWERED = Rule(
    Remedy.VERIFY, "COMMIT was sent, and its answer is not known", Pace.RECONNECT, may_have_committed=True
)
_TIME_LIMIT = Rule(
    Remedy.REPEAT,
    "the statement was cancelled, or ran into its time limit",
    Pace.LOCK,
    most=1,
    permission=Permission.REPEATS_CANCELLED,
)
_STATEMENT_GONE = Rule(Remedy.RECONNECT, "a prepared statement is gone", most=1)
_BY_CONNECTION = {
    Lost.NOT_HAD: _NEVER_SENT,
    Lost.NOT_LENT: replace(_FULL, why="the pool had no connection to lend"),
    Lost.GONE: _LOST,
    Lost.SLOW: _TIME_LIMIT,
    Lost.STATEMENT: _STATEMENT_GONE,
    Lost.NOT_LOST: _OF_THE_APPLICATION,
}

_BY_CODE = {
    "40001": Rule(Remedy.REPEAT, "two transactions could not be put in an order"),
    "40P01": Rule(Remedy.REPEAT, "it was the victim of a deadlock"),
    "40003": Rule(Remedy.VERIFY, "the server does not know whether it was carried out", Pace.RECONNECT),
    "08007": Rule(Remedy.VERIFY, "the server does not know whether it was committed", Pace.RECONNECT),
    "23505": Rule(Remedy.REPEAT, "the key exists already", most=1, permission=Permission.KEYS_FROM_READS),
    "23P01": Rule(Remedy.REPEAT, "it overlaps with another row", most=1, permission=Permission.KEYS_FROM_READS),
    "55P03": Rule(Remedy.REPEAT, "a lock was not to be had in time", Pace.LOCK),
    "57014": _TIME_LIMIT,
    "25P02": Rule(Remedy.NONE, "an earlier statement of the transaction had failed, and that error was swallowed"),
    "25P03": Rule(Remedy.RECONNECT, "the session was ended for idling in a transaction", Pace.RECONNECT),
    "25P04": Rule(Remedy.RECONNECT, "the transaction ran into its time limit", Pace.RECONNECT, most=1),
    "57P05": Rule(Remedy.RECONNECT, "the session was ended for idling", Pace.RECONNECT),
    "26000": _STATEMENT_GONE,
    "25006": Rule(Remedy.RECONNECT, "the server is read-only, perhaps after a failover", Pace.RECONNECT),
    "53300": _FULL,
    "53400": Rule(Remedy.NONE, "a configured limit is exceeded: raise it, or mend the query's plan"),
    "53100": Rule(Remedy.NONE, "the disk is full: stop writing until there is room"),
    "53200": Rule(Remedy.REPEAT, "the server ran out of memory", Pace.SHORTAGE, most=1),
    "57P01": replace(_LOST, why="the session was ended by an administrator"),
    "57P02": replace(_LOST, why="the server crashed"),
    "57P03": replace(_NEVER_SENT, why="the server is starting up or shutting down"),
    "08000": _LOST,
    "08001": _NEVER_SENT,
    "08003": _LOST,
    "08006": _LOST,
    "08004": Rule(Remedy.NONE, "the server refused the connection"),
    "08P01": Rule(Remedy.NONE, "the protocol was violated"),
}
_BY_CLASS = {"58": _BROKEN, "XX": _BROKEN}

_POOLER_REFUSES = re.compile(
    r"query_wait_timeout|max_client_conn|server_login_retry|client_login_timeout|cannot connect to server|"
    r"no more connections allowed|pooler is shut|server login has been failing|max_user_client_connections|"
    r"max_db_client_connections"
)
_POOLER_LOST = re.compile(r"server conn crashed|server_lifetime|server disconnect|client_idle_timeout")
_PLAN_CHANGED = re.compile(r"cached (statement )?plan")
_SHARED_MEMORY = re.compile(r"shared memory")
_NOT_ADMITTED = re.compile(r"too many clients|remaining connection slots|too many connections|requests waiting")
_NOT_LET_IN = re.compile(
    r"password authentication failed|no password supplied|no pg_hba\.conf entry|"
    r"(database|role|user) \"[^\"]*\" (does not exist|is not permitted)|permission denied for database|"
    r"certificate|SSL (was required|connection is required)|server does not support SSL|"
    r"the pool .* is (already closed|not open)|"
    r"could not translate host name .* Name or service not known"
)
_CONNECTING = re.compile(
    r"connection (to server .*)?failed|could not connect|Connection refused|connection timeout expired|"
    r"the database system is"
)


def rule_for(failure: Failure, phase: Phase) -> Rule:
    """Return what may be done about a failure that came in a phase.

    Parameters
    ----------
    failure : Failure
    phase : Phase

    Notes
    -----
    The phase decides first: what fails after COMMIT was sent is an answer only where the server says by SQLSTATE that
    it has not carried it out. Then the SQLSTATE; then the text, since psycopg gives no SQLSTATE for what fails while
    it connects.

    References
    ----------
    https://www.postgresql.org/docs/current/errcodes-appendix.html
    https://www.postgresql.org/docs/current/mvcc-serialization-failure-handling.html: 40001 and 40P01 are retried
    from the start of the transaction; 23505 and 23P01 may be the same in disguise, and may be not.
    docs/decisions/0027-retries.md, for each row.
    """
    if phase is Phase.COMMIT_SENT and not is_refusal(failure):
        return replace(_UNANSWERED, is_unreachable=_rule(failure).is_unreachable)
    rule = _rule(failure)
    if phase is Phase.UNKNOWN and rule.may_have_committed:
        return replace(rule, remedy=Remedy.VERIFY)
    return rule


def is_refusal(failure: Failure) -> bool:
    """Tell whether a failure of COMMIT says that the server has not carried it out.

    A shortage, an end of the session, an I/O error or an internal one may come when it had: a crash while the log is
    flushed, for one, after which the log may hold the commit.
    """
    if failure.sqlstate is None or failure.sqlstate in {"40003", "08007"}:
        return False
    return not failure.sqlstate.startswith(("08", "53", "57P", "58", "XX"))


def _rule(failure: Failure) -> Rule:
    return _rule_by_text(failure) or _rule_by_code(failure)


def _rule_by_code(failure: Failure) -> Rule:
    if failure.sqlstate is None:
        return _BY_CONNECTION[failure.connection]
    by_class = _BY_CLASS.get(failure.sqlstate[:2], _OF_THE_APPLICATION)
    return _BY_CODE.get(failure.sqlstate, by_class)


def _rule_by_text(failure: Failure) -> Rule | None:
    """Return the rule for what only its words tell; None where they tell nothing more."""
    match failure.sqlstate:
        case None if failure.connection in {Lost.GONE, Lost.NOT_HAD}:
            return _rule_while_connecting(failure.text)
        case "08P01" if _POOLER_REFUSES.search(failure.text):
            # the pooler had no server for it, so that no statement of this transaction has run
            return replace(_FULL, why="the pooler had no connection to give")
        case "08P01" if _POOLER_LOST.search(failure.text):
            return _LOST
        case "0A000" if _PLAN_CHANGED.search(failure.text):
            return Rule(Remedy.REPEAT, "a prepared statement's result has changed", most=1)
        case "53200" if _SHARED_MEMORY.search(failure.text):
            return Rule(Remedy.NONE, "the lock table is full: raise max_locks_per_transaction")
    return None


def _rule_while_connecting(text: str) -> Rule | None:
    if _NOT_LET_IN.search(text):
        return replace(_OF_THE_APPLICATION, why="the server does not let this role in")
    if _NOT_ADMITTED.search(text):
        return _FULL
    if _POOLER_REFUSES.search(text):
        return replace(_FULL, why="the pooler had no connection to give")
    return _NEVER_SENT if _CONNECTING.search(text) else None
