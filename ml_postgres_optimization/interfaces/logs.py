"""Structured logs as JSON lines, with no secret in them."""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

import structlog

from ml_postgres_optimization.redaction import without_passwords

ROTATE_AT_BYTES = 20_000_000
KEPT_FILES = 5
LOG_NAME = "genesis-pg.jsonl"
_SECRET_WORDS = ("password", "passwd", "secret", "token")

Log = structlog.stdlib.BoundLogger


class _QuietHandler(logging.handlers.RotatingFileHandler):
    """Write to a file; when its disk is full, say so once on standard error and go on without the log."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=ROTATE_AT_BYTES, backupCount=KEPT_FILES, delay=True)
        self._complained = False

    def _open(self) -> TextIOWrapper:
        """Open the file, for us alone."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.fdopen(os.open(self.baseFilename, flags, 0o600), "a", encoding="utf-8")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the standard library's name
        if not self._complained:
            self._complained = True
            sys.stderr.write(
                f"The log {self.baseFilename} cannot be written any more; the work goes on without it.\n"
            )


@contextmanager
def open_log(folder: Path, *, run: str) -> Iterator[Log]:
    """Give a logger that appends to ``genesis-pg.jsonl`` in `folder`, each line bound to `run`.

    Notes
    -----
    The file is rotated at 20 MB, five are kept. A log that cannot be written never stops the work.
    """
    handler = _QuietHandler(folder / LOG_NAME)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.Logger("genesis-pg", logging.INFO)
    logger.addHandler(handler)
    log: Log = structlog.wrap_logger(
        logger,
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.stdlib.add_log_level,
            structlog.processors.format_exc_info,
            _without_secrets,
            structlog.processors.JSONRenderer(),
        ],
    ).bind(run=run)
    try:
        yield log
    finally:
        handler.close()


def _without_secrets(
    _logger: object, _method: str, event: MutableMapping[str, object]
) -> MutableMapping[str, object]:
    """Blot out what is called a password, whoever put it there, and passwords within texts."""
    return {key: _shown(key, value) for key, value in event.items()}


def _shown(key: str, value: object) -> object:
    """Return what of a value may be written, as JSON has it."""
    if any(word in key.lower() for word in _SECRET_WORDS):
        return "***"
    if isinstance(value, Mapping):
        return {str(name): _shown(str(name), inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown("", inner) for inner in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    # line by line: a traceback has lines of code, of which one is not to vanish for the sake of another
    return "".join(map(without_passwords, str(value).splitlines(keepends=True)))
