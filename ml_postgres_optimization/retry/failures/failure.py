"""What an exception says about a failure of the database, whichever driver raised it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ml_postgres_optimization.retry.classification import ErrorClass, error_class

_DRIVERS = frozenset({"psycopg", "psycopg_pool", "psycopg2", "asyncpg", "sqlalchemy"})
# what asyncpg says of every session that has ended
_GONE = "08003"
_IN_FAILED_TRANSACTION = "25P02"
# what DB-API calls the error of a connection; psycopg 2 has a plain DatabaseError for some
_OPERATIONAL = frozenset({"OperationalError"})
# psycopg 3, psycopg 2 and asyncpg say it in these words, which no locale translates
_CLOSED = re.compile(
    r"connection (is|was|has been|already) (lost|closed)|underlying connection|SSL SYSCALL error|EOF detected|"
    r"server closed the connection|"
    # asyncpg, before it sends anything: what the server said last was an error (2 is PROTOCOL_ERROR_CONSUME), and the
    # end of the line has not been noticed yet
    r"cannot switch to .*(another operation \(2\) is in progress|protocol is in the \"failed\" state)|^not connected$"
)
# asyncpg's words
_STATEMENT_CLOSED = re.compile(r"prepared statement is closed")
_NO_HOST = re.compile(r"failed to resolve host")
_CONNECTING_MODULES = frozenset({"asyncpg.connect_utils"})
_POOL_FUNCTIONS = frozenset({"_acquire", "_acquire_impl"})


class Lost(StrEnum):
    """What a failure without a SQLSTATE says of the connection."""

    NOT_HAD = "not had"
    """None could be opened."""
    NOT_LENT = "not lent"
    """The pool had none to lend."""
    GONE = "gone"
    """It was there, and is not any more."""
    SLOW = "slow"
    """It is there, and what was asked of it took too long."""
    STATEMENT = "statement"
    """It is there, and a statement that was prepared on it is not."""
    NOT_LOST = "not lost"
    """Nothing: the driver was used in a wrong way."""


# General error, HY000, is SQL/CLI's (ISO/IEC 9075-3) for what is the driver's own; PostgreSQL has the others.
_CODES = {
    Lost.NOT_HAD: "08001",
    Lost.NOT_LENT: "53300",
    Lost.GONE: "08003",
    Lost.SLOW: "57014",
    Lost.STATEMENT: "26000",
    Lost.NOT_LOST: "HY000",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure that a driver reported."""

    sqlstate: str | None
    """Five characters; None where the driver gave none."""
    text: str
    """What it said, in the language of the server or of libpq; nothing of the statement that it was about."""
    connection: Lost = Lost.NOT_LOST
    """What became of the connection; told only where there is no SQLSTATE."""

    @property
    def kind(self) -> str:
        """The SQLSTATE, or what is said of failures without one."""
        return self.sqlstate or "no SQLSTATE"

    @property
    def code(self) -> str:
        """The SQLSTATE; where the driver gave none, the one that stands for what became of the connection."""
        return self.sqlstate or _CODES[self.connection]

    @property
    def error_class(self) -> ErrorClass:
        """The one class that it is in."""
        return error_class(self.code)


def failure_of(error: BaseException) -> Failure | None:
    """Return what `error` says of the database; None where it comes from elsewhere.

    Parameters
    ----------
    error : BaseException
        Raised by psycopg 3, psycopg 2, asyncpg, by SQLAlchemy around one of them, or by any driver whose errors have
        a ``sqlstate`` or ``pgcode``; or an error of the operating system that one of them let through.

    Notes
    -----
    The outermost SQLSTATE counts, unless it only says that the connection is gone: asyncpg reports 08003 for a
    session that was terminated, and keeps the server's 57P01, or a pooler's 08P01, in ``__cause__``. 25P02 says that
    something had failed before, so the first error of the transaction counts where it is still known.
    """
    of_database = [each for each in causes(error) if _is_of_database(each)]
    if not of_database:
        return None
    codes = [code for each in of_database if (code := _sqlstate(each))]
    telling = [code for code in codes if not code.startswith("08")] or [code for code in codes if code != _GONE]
    sqlstate = next(iter(telling or codes), None)
    # around a driver's error SQLAlchemy's shows the statement and its parameters
    drivers_own = [each for each in of_database if getattr(each, "orig", None) is None]
    text = "\n".join(map(_text, drivers_own))
    if sqlstate == _IN_FAILED_TRANSACTION:
        return _first_failure(error) or Failure(sqlstate, text)
    return Failure(sqlstate, text, Lost.NOT_LOST if sqlstate else _lost(drivers_own, text))


def _first_failure(error: BaseException) -> Failure | None:
    """Return the oldest failure that was being handled when `error` was raised."""
    first, seen = None, {id(error)}
    earlier = error.__context__
    while earlier is not None and id(earlier) not in seen:
        seen.add(id(earlier))
        code = _sqlstate(earlier)
        if code and code != _IN_FAILED_TRANSACTION:
            first = Failure(code, _text(earlier))
        earlier = earlier.__context__
    return first


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield `error` and what it was raised from, outermost first."""
    seen: set[int] = set()
    following: list[BaseException | None] = [error]
    while following:
        each = following.pop(0)
        if isinstance(each, BaseException) and id(each) not in seen:
            seen.add(id(each))
            yield each
            # SQLAlchemy keeps the driver's error in `orig`
            following += [getattr(each, "orig", None), each.__cause__]


def _sqlstate(error: BaseException) -> str | None:
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return code if isinstance(code, str) and len(code) == 5 else None


def _text(error: BaseException) -> str:
    """Return the message: behind its first line, one of the server's shows the statement."""
    said = str(error)
    return said.partition("\n")[0] if _sqlstate(error) else said


def _is_of_database(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return any(_root(module) in _DRIVERS for module, _ in _frames(error))
    is_drivers = any(_root(each.__module__) in _DRIVERS for each in type(error).mro())
    return isinstance(error, Exception) and (_sqlstate(error) is not None or is_drivers)


def _lost(errors: Sequence[BaseException], text: str) -> Lost:
    frames = {frame for error in errors if isinstance(error, OSError) for frame in _frames(error)}
    if frames:
        return _lost_by_frames(frames, any(isinstance(error, TimeoutError) for error in errors))
    if any(each.__name__ in {"PoolTimeout", "TooManyRequests"} for error in errors for each in type(error).mro()):
        return Lost.NOT_LENT
    if "QueuePool limit" in text:
        return Lost.NOT_LENT
    if _NO_HOST.search(text):
        return Lost.NOT_HAD
    if _STATEMENT_CLOSED.search(text):
        return Lost.STATEMENT
    is_operational = any(each.__name__ in _OPERATIONAL for error in errors for each in type(error).mro())
    return Lost.GONE if is_operational or _CLOSED.search(text) else Lost.NOT_LOST


def _lost_by_frames(frames: set[tuple[str, str]], is_timeout: bool) -> Lost:
    """Tell what an error of the operating system, which asyncpg lets through, was about."""
    # of a time-out while asyncpg connects, the frames of the connecting itself are on the cancellation inside of it
    is_connecting = ("asyncpg.connection", "connect") in frames
    if is_connecting or any(module in _CONNECTING_MODULES for module, _ in frames):
        return Lost.NOT_HAD
    if is_timeout and any(name in _POOL_FUNCTIONS for module, name in frames if _root(module) in _DRIVERS):
        return Lost.NOT_LENT
    return Lost.SLOW if is_timeout else Lost.GONE


def _frames(error: BaseException) -> Iterator[tuple[str, str]]:
    """Yield module and function of every frame that an error came through."""
    traceback = error.__traceback__
    while traceback is not None:
        yield str(traceback.tb_frame.f_globals.get("__name__", "")), traceback.tb_frame.f_code.co_name
        traceback = traceback.tb_next


def _root(module: str) -> str:
    return module.partition(".")[0]
