"""Proposals that wait for the owner's word: a file each, which the tuner makes and the owner decides."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from ml_postgres_optimization.errors import StateError, UsageError
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.knobs.knob import KnobValue
from ml_postgres_optimization.telemetry import Clock

LAST = "last"
_FOLDER, _LOCK = "proposals", "lock"
_FORMAT = 1
# A run that was stopped before anybody answered leaves one; nobody reads more than these.
_MOST_WAITING = 20
_MOST_BYTES = 1 << 20
_NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ID = re.compile(r"[0-9a-f]{12}")
_SHORTEST_PREFIX = 4


class Answer(StrEnum):
    """What the owner said of a proposal."""

    WAITING = "waiting"
    APPROVED = "approved"
    DECLINED = "declined"


@dataclass(frozen=True, slots=True)
class Asking:
    """A configuration that the owner was asked for.

    Parameters
    ----------
    id : str
        That of the configuration.
    at : str
        When it was asked, wall time, ISO 8601 in UTC.
    before, after : mapping of str to KnobValue
        What was in force then, and what is proposed.
    reason : str
        Why.
    answer : Answer
    answered_at, answered_by : str
        When, and by which account of the operating system; empty while it waits.
    """

    id: str
    at: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    reason: str
    answer: Answer = Answer.WAITING
    answered_at: str = ""
    answered_by: str = ""

    @property
    def configuration(self) -> Configuration:
        """What is proposed."""
        return Configuration(self.after)

    @property
    def changes(self) -> dict[str, tuple[KnobValue | None, KnobValue | None]]:
        """Each knob that would change, with its old and new value."""
        return self.configuration.difference(Configuration(self.before))


class Approvals:
    """The proposals of one server, in a folder of its state.

    Parameters
    ----------
    directory : Path
        The server's state folder.
    clock : Clock

    Raises
    ------
    StateError
        By every method: if the folder cannot be read or written.
    """

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._known = ""

    def know(self, configuration: Configuration) -> None:
        """Need no word for going back to this one, and to no other: it was in force when a campaign began."""
        self._known = configuration.id

    def ask(self, before: Configuration, after: Configuration, reason: str) -> Answer:
        """Have the owner asked for `after`, unless that was done already, and return what was said so far."""
        asked = self._read(self._path(after.id))
        if self._needs_no_word(after, asked):
            return Answer.APPROVED
        if asked is None:
            asked = Asking(after.id, self._clock.now().isoformat(), dict(before), dict(after), reason)
            with self._alone():
                self._write(asked)
                self._forget_oldest(asked)
        return asked.answer

    def answer_of(self, configuration: Configuration) -> Answer:
        """Return what was said of a configuration; waiting where nobody was asked."""
        asked = self._read(self._path(configuration.id))
        if self._needs_no_word(configuration, asked):
            return Answer.APPROVED
        return Answer.WAITING if asked is None else asked.answer

    def _needs_no_word(self, configuration: Configuration, asked: Asking | None) -> bool:
        return configuration.id == self._known and (asked is None or asked.answer is not Answer.DECLINED)

    def all(self, *answers: Answer) -> list[Asking]:
        """Return the proposals with one of these answers, all by default; the oldest first."""
        wanted = answers or tuple(Answer)
        found = [asked for path in self._paths() if (asked := self._read(path)) and asked.answer in wanted]
        return sorted(found, key=lambda asked: (asked.at, asked.id))

    def answer(self, name: str, answer: Answer, by: str) -> Asking:
        """Say of the proposal whose id is `name`, or begins so, or of the last that waits, whether it may be tried.

        Raises
        ------
        UsageError
            If there is none, or several.
        """
        with self._alone():
            answered = replace(
                self._named(name), answer=answer, answered_at=self._clock.now().isoformat(), answered_by=by
            )
            self._write(answered)
        return answered

    def close(self, proposal_id: str) -> None:
        """Forget a proposal that was tried: to try it again takes another word."""
        with self._alone():
            self._path(proposal_id).unlink(missing_ok=True)

    def _named(self, name: str) -> Asking:
        if name == LAST and (waiting := self.all(Answer.WAITING)):
            return waiting[-1]
        found = [asked for asked in self.all() if _is_meant(name, asked.id)]
        if len(found) == 1:
            return found[0]
        known = ", ".join(asked.id for asked in found or self.all(Answer.WAITING)) or "none"
        what = f"{name!r} could be any of" if found else f"No proposal {name!r} is known; waiting are"
        raise UsageError(f"{what}: {known}.", "Name one of them: genesis-pg approve shows them.")

    def _path(self, proposal_id: str) -> Path:
        return self._directory / _FOLDER / f"{proposal_id}.json"

    def _paths(self) -> Iterable[Path]:
        with _usable(self._directory):
            return sorted((self._directory / _FOLDER).glob("*.json"))

    def _read(self, path: Path) -> Asking | None:
        """Return what a file says; None where there is none, or nothing that could be meant."""
        with suppress(FileNotFoundError), _usable(self._directory), path.open("rb") as file:
            return _asking_of(file.read(_MOST_BYTES), path.stem)
        return None

    def _write(self, asked: Asking) -> None:
        path = self._path(asked.id)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        text = json.dumps({"format": _FORMAT, **asdict(asked)}, indent=1, ensure_ascii=False)
        with _usable(self._directory):
            partial.unlink(missing_ok=True)
            with os.fdopen(os.open(partial, _NEW_FLAGS, 0o600), "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)

    def _forget_oldest(self, newest: Asking) -> None:
        others = [asked for asked in self.all(Answer.WAITING) if asked.id != newest.id]
        for asked in others[: max(0, len(others) + 1 - _MOST_WAITING)]:
            self._path(asked.id).unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep the tuner and whoever answers from writing over each other."""
        folder = self._directory / _FOLDER
        with _usable(self._directory):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
            finally:
                os.close(lock)


def _is_meant(name: str, proposal_id: str) -> bool:
    return proposal_id == name or (len(name) >= _SHORTEST_PREFIX and proposal_id.startswith(name))


def _asking_of(data: bytes, proposal_id: str) -> Asking | None:
    """Read a proposal; None for what is none of ours, whose values would not have its id for one."""
    try:
        content = json.loads(data)
        if content.pop("format") != _FORMAT:
            return None
        asked = Asking(**{**content, "answer": Answer(content["answer"])})
        are_plain = all(
            isinstance(value, str | int | float) for value in (*asked.before.values(), *asked.after.values())
        )
        are_texts = all(
            isinstance(text, str) for text in (asked.at, asked.reason, asked.answered_at, asked.answered_by)
        )
        is_sound = _ID.fullmatch(proposal_id) and asked.id == proposal_id == asked.configuration.id
        return asked if are_plain and are_texts and is_sound else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


@contextmanager
def _usable(directory: Path) -> Iterator[None]:
    """Say of a folder that fails why it cannot be used."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StateError(
            f"The proposals in {directory} cannot be used: {error.strerror or error}.",
            "Make room or permit writing there, or set GENESIS_HOME to another folder.",
        ) from error
