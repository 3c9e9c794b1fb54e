"""What a client says to PostgreSQL, message by message, as far as a proxy has to understand it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_LENGTH = struct.Struct("!I")
_ENCRYPTION_REQUESTS = frozenset({80877103, 80877104})  # SSLRequest, GSSENCRequest
_COMMIT = (b"COMMIT", b"END")


class FrontendStream:
    """Cut the bytes of a client into messages.

    References
    ----------
    https://www.postgresql.org/docs/current/protocol-message-formats.html

    Examples
    --------
    >>> stream = FrontendStream()
    >>> startup = b"\\0\\0\\0\\x08\\0\\x03\\0\\0"
    >>> commit = b"Q\\0\\0\\0\\x0bCOMMIT\\0"
    >>> [is_commit(message) for message in stream.messages(startup + commit[:5])]
    [False]
    >>> [is_commit(message) for message in stream.messages(commit[5:])]
    [True]
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._is_started = False

    def messages(self, data: bytes) -> Iterator[bytes]:
        """Take `data`, and yield the messages that are complete by now."""
        self._buffer += data
        while (size := self._size()) is not None and len(self._buffer) >= size:
            message, self._buffer = self._buffer[:size], self._buffer[size:]
            self._is_started = self._is_started or not asks_for_encryption(message)
            yield message

    def _size(self) -> int | None:
        """Return the size of the first message; None where not even that is there yet."""
        # the messages before the session has begun have no letter
        offset = 1 if self._is_started else 0
        if len(self._buffer) < offset + _LENGTH.size:
            return None
        return offset + int(_LENGTH.unpack_from(self._buffer, offset)[0])


def asks_for_encryption(message: bytes) -> bool:
    """Tell whether a message asks whether the session may be encrypted."""
    return len(message) == 8 and _LENGTH.unpack_from(message, 4)[0] in _ENCRYPTION_REQUESTS


def is_commit(message: bytes) -> bool:
    """Tell whether a message has the server commit, in the simple protocol, in which the drivers ask for it."""
    return message[:1] == b"Q" and message[5:].lstrip().upper().startswith(_COMMIT)
