"""What the settings do while a test runs, whoever changes them: marks on its time axis, and what is in force."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from ml_postgres_optimization.errors import JournalError, TargetError
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.trial_view import changes_text, shown, verdict_text
from ml_postgres_optimization.interfaces.workbench.ground import survey
from ml_postgres_optimization.interfaces.workbench.observing import Observer
from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.safety.journal import FollowedJournal, Record, RecordKind
from ml_postgres_optimization.soak.interval import Event, EventKind
from ml_postgres_optimization.telemetry import SystemClock
from ml_postgres_optimization.workload import LoadPlan

ON_TRIAL = "on-trial"
"""In place of a configuration's id while several are in force in turn: nothing is to be learned of one from it."""
_PREVENTION = "-prevention"
_ENDINGS = {RecordKind.CONFIRMED: "kept", RecordKind.REVERTED: "put back"}


class ConfigurationMarks:
    """Tell of trials, by the journal of whoever holds them here, and of what is in force where none is held.

    Parameters
    ----------
    session : Session
    read : callable
        Returns the configuration in force.
    know : callable
        Told each one that is.
    since : datetime
        Of what began before, nothing is told.
    """

    def __init__(
        self,
        session: Session,
        read: Callable[[], Configuration],
        know: Callable[[Configuration], object],
        since: datetime,
    ) -> None:
        self._session = session
        self._read = read
        self._know = know
        self._since = since
        self._journal = FollowedJournal(session.home.of_server(session.server))
        self._intents: dict[str, Record] = {}
        self._open: set[str] = set()
        self._troubles: set[str] = set()
        self._events: list[Event] = []
        self._loaded_at: datetime | None = None
        self._in_force = read()
        know(self._in_force)

    def configuration_id(self) -> str:
        """Look, and return the id of what is in force; `ON_TRIAL` while something is tried."""
        self._quietly(self._look_at_trials)
        self._quietly(self._look_at_settings)
        return ON_TRIAL if self._open else self._in_force.id

    def events(self) -> tuple[Event, ...]:
        """Return what there is to tell since the last call; a trial is told when it begins, and again at its end."""
        told = tuple(event for event in self._events if event.at >= self._since)
        self._events = []
        return told

    def _quietly(self, look: Callable[[], None]) -> None:
        """Look; what cannot be seen now is looked at again in the next interval, and told once."""
        try:
            look()
        except (JournalError, TargetError) as error:
            if error.what not in self._troubles:
                self._session.log.warning("marks", what=error.what)
            self._troubles.add(error.what)

    def _look_at_trials(self) -> None:
        records = self._journal.new()
        if self._journal.has_missed:  # what was open has ended, and nobody knows how
            self._open.clear()
        for record in records:
            self._hear(record)

    def _hear(self, record: Record) -> None:
        name = record.trial_id
        if record.kind is RecordKind.INTENT and name not in self._intents:
            self._intents[name] = record
            self._open.add(name)
            self._tell(f"{_what(record)} began.", record)
        elif record.kind in _ENDINGS and name in self._open:
            self._open.remove(name)
            text = f"{_what(self._intents[name])}: {_ENDINGS[record.kind]}. {self._verdict(name)}"
            self._tell(text.rstrip(), self._intents[name], datetime.fromisoformat(record.at))
        elif record.kind is RecordKind.REVERTED:
            text = f"{_what(self._intents[name])}, which had been kept, was put back."
            self._tell(text, record)

    def _tell(self, text: str, record: Record, until: datetime | None = None) -> None:
        self._events.append(Event(EventKind.CONFIGURATION, text, datetime.fromisoformat(record.at), until))

    def _verdict(self, name: str) -> str:
        """Return what the repository knows of a trial that has ended, if it does; the past is not asked for."""
        if datetime.fromisoformat(self._intents[name].at) < self._since:
            return ""
        try:
            found = next((one for one in reversed(self._session.repository().trials()) if one.id == name), None)
        except TargetError:
            return ""
        return f"{verdict_text(found)}." if found else ""

    def _look_at_settings(self) -> None:
        if self._open:
            return
        loaded_at = self._session.target.looked().loaded_at
        if loaded_at == self._loaded_at:
            return
        before, self._in_force, self._loaded_at = self._in_force, self._read(), loaded_at
        if changed := changes_text(before, self._in_force, load_catalogue()):
            self._know(self._in_force)
            text = f"In force now: {changed.replace(chr(10), '; ')}."
            self._events.append(Event(EventKind.CONFIGURATION, text, self._session.clock.now()))


def marks_of(session: Session, plan: LoadPlan, observer: Observer) -> ConfigurationMarks:
    """Follow the configuration in force from now on, and have the repository know it."""

    def in_force() -> Configuration:
        return replace(survey(session, connections=plan.connections), concurrency=plan.connections).initial

    return ConfigurationMarks(
        session, in_force, lambda configuration: observer.know(configuration, "in force"), SystemClock().now()
    )


def _what(intent: Record) -> str:
    catalogue = load_catalogue()
    changed = "; ".join(
        f"{knob.name}: {shown(knob.name, knob.old_value, catalogue)} → {shown(knob.name, knob.new_value, catalogue)}"
        for knob in intent.knobs
    )
    return f"{'Prevention' if intent.trial_id.endswith(_PREVENTION) else 'Trial'} of {changed}"
