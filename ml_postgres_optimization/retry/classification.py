"""From a SQLSTATE to the class of error that one lever prevents."""

from __future__ import annotations

from enum import StrEnum


class ErrorClass(StrEnum):
    """What kind of failure it was, so that each class has one preventive lever.

    References
    ----------
    The table of SQLSTATEs and levers: docs/decisions/0011-error-classes.md.
    https://www.postgresql.org/docs/current/errcodes-appendix.html
    """

    SERIALIZATION = "serialization"
    """Two transactions cannot be put in an order: fewer at once on a hot key, or a lower isolation."""
    DEADLOCK = "deadlock"
    """Two transactions wait for each other: order the locks, fewer writers on a key."""
    CONNECTION = "connection"
    """The session is gone, was refused, or ended on the wrong server: drain, reconnect, find the primary."""
    RESOURCES = "resources"
    """Memory, disk, connections or lock slots ran out: admit less, raise the limit."""
    TIMEOUT = "timeout"
    """A lock, statement, transaction or idle timeout struck: index, plan, shorter transactions."""
    INTERNAL = "internal"
    """I/O error, corruption or a bug: nothing to tune; stop and keep the evidence."""
    OTHER = "other"
    """The application's own: constraints, data, syntax, privileges. No setting prevents them."""


_BY_CODE = {
    "40001": ErrorClass.SERIALIZATION,
    "40P01": ErrorClass.DEADLOCK,
    "40003": ErrorClass.CONNECTION,  # whether it was committed is unknown, since the connection broke
    "25006": ErrorClass.CONNECTION,  # read-only after a failover: reconnect to the primary
    "55P03": ErrorClass.TIMEOUT,
    "57014": ErrorClass.TIMEOUT,
    "25P03": ErrorClass.TIMEOUT,
    "25P04": ErrorClass.TIMEOUT,
    "57P05": ErrorClass.TIMEOUT,
}
_BY_PREFIX = {
    "08": ErrorClass.CONNECTION,
    "57P": ErrorClass.CONNECTION,
    "53": ErrorClass.RESOURCES,
    "58": ErrorClass.INTERNAL,
    "XX": ErrorClass.INTERNAL,
}


def error_class(sqlstate: str | None) -> ErrorClass:
    """Return the class of a failure with this SQLSTATE.

    Parameters
    ----------
    sqlstate : str or None
        Five characters; None or empty where the driver gave none, which happens when a connection is lost.

    Examples
    --------
    >>> error_class("40P01").value, error_class(None).value, error_class("23505").value
    ('deadlock', 'connection', 'other')
    """
    if not sqlstate:
        return ErrorClass.CONNECTION
    if sqlstate in _BY_CODE:
        return _BY_CODE[sqlstate]
    for prefix, failure in _BY_PREFIX.items():
        if sqlstate.startswith(prefix):
            return failure
    return ErrorClass.OTHER
