"""Notice what is in force on the server, whoever changed it, and have the repository keep its history."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from ml_postgres_optimization.errors import TargetError
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.knobs.rendering import parse, same_value
from ml_postgres_optimization.safety.journal import Journal, KnobChange, content_of
from ml_postgres_optimization.target.postgres.repository import (
    JournalEntry,
    Repository,
)
from ml_postgres_optimization.target.seen import ConfigurationSeen, SettingSeen

# Where nothing changes, the history says once a minute that somebody looked. It is compared with all that is in force
# then: somebody else may have written to it, record_window() over a restart for one.
_TELL_EVERY_SECONDS = 60.0


class ConfigurationWatch:
    """Look at the configuration as often as wanted, at the cost of one short query where nothing was reloaded.

    What is on trial is left out: the history knows what was proven, and the journal the trial's every step.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._stored: dict[str, str] = {}
        self._loaded_at: datetime | None = None
        self._told_seconds = -math.inf

    def look(self) -> Callable[[Repository], None] | None:
        """Return what the repository has to do, where there is something to keep."""
        now_seconds = self._session.clock.monotonic_seconds()
        is_due = now_seconds - self._told_seconds >= _TELL_EVERY_SECONDS
        if is_due:
            self._stored.clear()
            self._loaded_at = None
        try:
            seen = None if _is_left_to_another(self._session) else self._seen()
        except TargetError as error:
            # the next look finds the same
            self._session.log.warning("configuration", what=error.what)
            return None
        if seen is None or seen.is_standby or not (seen.settings or is_due):
            return None
        self._told_seconds = now_seconds
        return lambda repository: self._store(repository, seen)

    def _seen(self) -> ConfigurationSeen:
        looked = self._session.target.looked()
        if looked.loaded_at == self._loaded_at:
            return looked
        seen = self._session.target.configuration_seen()
        proven = [setting for setting in seen.settings if not self._is_on_trial(setting)]
        differing = tuple(setting for setting in proven if self._stored.get(setting.name) != setting.value)
        # what is left out or not stored yet has to be looked at again, though nothing is reloaded meanwhile
        self._loaded_at = None if differing or len(proven) < len(seen.settings) else seen.loaded_at
        return replace(seen, settings=differing)

    def _store(self, repository: Repository, seen: ConfigurationSeen) -> None:
        repository.record_configuration(self._session.server, seen)
        self._stored |= {setting.name: setting.value for setting in seen.settings}

    def _is_on_trial(self, setting: SettingSeen) -> bool:
        journal = self._session.journal
        return journal is not None and any(
            _is_either(knob, setting)
            for trial in journal.state.unfinished
            for knob in trial.intent.knobs
            if knob.name == setting.name
        )


def _is_either(knob: KnobChange, setting: SettingSeen) -> bool:
    """Tell whether a setting has what was in force before the trial, or what is tried."""
    value = parse(setting.value, setting.kind, setting.unit)
    return any(same_value(value, one, setting.kind) for one in (knob.old_value, knob.new_value))


def _is_left_to_another(session: Session) -> bool:
    """Tell whether another optimiser is at work, who alone knows what it has on trial."""
    return not session.is_sole_optimizer() and session.target.other_optimizer() is not None


def unmirrored(journal: Journal | None) -> list[JournalEntry]:
    """Take out of the journal what the repository does not know yet."""
    if journal is None:
        return []
    entries = [JournalEntry(datetime.fromisoformat(record.at), content_of(record)) for record in journal.unmirrored]
    journal.unmirrored.clear()
    return entries


def record_configuration(session: Session) -> bool:
    """Have the repository know what is in force now; return whether it does.

    It does not where another optimiser is at work, which looks by itself; nor of a standby, which goes by the name of
    its primary.

    What it should have known is in the journal on disk; so a repository that is away, or without schema genesis,
    keeps nobody from putting settings back.
    """
    try:
        repository = session.repository()
        if entries := unmirrored(session.journal):
            repository.mirror_journal(session.server, entries)
        seen = session.target.configuration_seen()
        if seen.is_standby or _is_left_to_another(session):
            return False
        repository.record_configuration(session.server, seen)
    except TargetError as error:
        session.log.warning("repository", what=error.what)
        return False
    return True
