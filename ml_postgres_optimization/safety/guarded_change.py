"""A change that is journalled, applied, verified, and put back whatever comes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Protocol, Self

from ml_postgres_optimization.errors import (
    AlreadyRunning,
    ChangeRefused,
    ForeignChange,
    GenesisError,
    NotNow,
    TargetError,
)
from ml_postgres_optimization.knobs.configuration import Change, Configuration, described, is_of_role
from ml_postgres_optimization.knobs.knob import Setting
from ml_postgres_optimization.knobs.rendering import written_text
from ml_postgres_optimization.safety.deferral import deferred_signals
from ml_postgres_optimization.safety.journal import Journal, KnobChange, RecordKind, Terms
from ml_postgres_optimization.safety.permission import require_effect
from ml_postgres_optimization.safety.undo import is_as_before, is_ours, needs_restart, put_back, says
from ml_postgres_optimization.target.protocols import Actuator


class Guarding(Protocol):
    """What a change needs of the guard: see `guard.Guard`."""

    actuator: Actuator
    journal: Journal

    def intended(self, change: Change) -> tuple[KnobChange, ...]:
        """Review `change`, and return what it takes."""

    def opened(self, trial_id: str, knobs: tuple[KnobChange, ...]) -> Terms | None:
        """Know a trial as open, and return under what it is held."""

    def closed(self, trial_id: str) -> None:
        """Know it as closed."""

    def left(self, trial_id: str) -> None:
        """Know that it could not be put back."""

    def require_sole(self) -> None:
        """Refuse to go on where another optimiser may be at work."""

    def look(self, configuration: Configuration, needed_seconds: float = 0.0) -> None:
        """See that the owner lets `configuration` be in force."""

    def require_protection(self) -> None:
        """See that somebody stands by."""

    def restart(self, rescue: Mapping[str, str | None]) -> None:
        """Restart the server."""


class GuardedChange:
    """A trial's change: in force between `apply` and `withdraw`, as often as wanted, and for good after `confirm`.

    Entering reviews the change and journals what is intended, before anything is written. Leaving without `confirm`
    puts everything back, whatever the reason; where the server is away at that moment, the next start does it.

    Attributes
    ----------
    foreign_changes : mapping of str to str
        Knobs that somebody else changed meanwhile, and that were left alone → what the file says of them.
    """

    def __init__(self, guard: Guarding, change: Change, trial_id: str) -> None:
        self._guard = guard
        self._change = change
        self._trial_id = trial_id
        self._knobs: tuple[KnobChange, ...] = ()
        self._needs_restart = False
        self._is_open = False
        self._is_applied = False
        self._may_be_written = False
        self.foreign_changes: dict[str, str] = {}

    def __enter__(self) -> Self:
        try:
            with deferred_signals():
                self._knobs = self._guard.intended(self._change)
                self._needs_restart = any(needs_restart(setting) for setting in self._live().values())
                self._journal(RecordKind.INTENT, knobs=self._knobs)
                self._is_open = True
                if terms := self._guard.opened(self._trial_id, self._knobs):
                    self._journal(RecordKind.ARMED, terms=terms)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._is_open:
            return
        with deferred_signals():
            try:
                self._put_back()
                self._journal(RecordKind.REVERTED, foreign=self.foreign_changes)
                self._is_open = False
                # not before: whoever stands by goes on standing by for what could not be put back
                with suppress(TargetError):  # whoever cannot be told finds nothing left to do
                    self._guard.closed(self._trial_id)
            except GenesisError as failure:
                self._guard.left(self._trial_id)
                # who takes these two for "as it was" goes on; nobody may go on over what could not be put back
                if error is None or isinstance(error, (ChangeRefused, NotNow)):
                    raise
                error.add_note(f"Trial {self._trial_id} stays unfinished, and the next start undoes it: {failure}")

    def apply(self) -> None:
        """Put the candidate in force and see that a fresh session has it; all of it or, on any failure, nothing.

        Raises
        ------
        ChangeRefused
            If the server refuses a value, somebody else has changed one of the knobs, or a setting of the role or
            the database wins over ours.
        TargetError
            If the server is away; then the next `withdraw`, the end of the context or the next start puts it back.
        AlreadyRunning
            If the optimiser's lock was lost.
        NotNow
            If the server's owner does not allow it now.
        """
        if self._is_applied:
            return
        self.look()
        self._guard.require_sole()
        if self._knobs:  # of what is on our own side nothing stays behind
            self._guard.require_protection()
        with deferred_signals():
            if self._may_be_written:
                self._put_back()
            self._refuse_foreign(self._live())
            try:
                self._write()
                self._journal(RecordKind.APPLIED)
                self._verify()
            except BaseException as failure:
                self._after(failure)
                raise
            self._journal(RecordKind.VERIFIED)

    def withdraw(self) -> None:
        """Put back what is still ours; somebody else's change stays, and stands in `foreign_changes`.

        Raises
        ------
        TargetError
            If the server is away; then the end of the context or the next start puts it back.
        """
        if not self._may_be_written:
            return
        with deferred_signals():
            self._put_back()
            self._journal(RecordKind.WITHDRAWN, foreign=self.foreign_changes)

    @property
    def _old(self) -> dict[str, str | None]:
        return {knob.name: knob.old_written for knob in self._knobs if not is_of_role(knob.name)}

    @property
    def needs_restart(self) -> bool:
        """Whether the server has to be restarted between the baseline and the candidate."""
        return self._needs_restart

    def renew(self) -> None:
        """Restart the server under what is in force, so that its caches are as after any other restart.

        Raises
        ------
        ChangeRefused, TargetError
            If it does not start, though it did before; the candidate is taken back then (`Actuator.restart`).
        """
        self._guard.require_sole()
        with deferred_signals():
            try:
                self._guard.restart(self._old if self._is_applied else {})
                self._guard.require_protection()
                if self._is_applied:
                    self._verify()
            except BaseException as failure:
                if self._is_applied:
                    self._after(failure)
                raise

    def look(self, needed_seconds: float = 0.0) -> None:
        """See that the candidate may be in force for so long.

        Raises
        ------
        NotNow
            If the server's owner wants it back; leaving the context puts it back.
        """
        self._guard.look(self._change.after, needed_seconds)

    def session_settings(self, configuration: Configuration) -> dict[str, str]:
        """Return what a session has to SET for itself to run under the baseline or the candidate."""
        is_after = configuration == self._change.after
        return {knob.name: written_text(knob.new_value if is_after else knob.old_value) for knob in self._knobs}

    def confirm(self) -> None:
        """Leave the candidate in force for good; put it in force first, where it is not.

        Raises
        ------
        NotNow
            If the server's owner has called a halt meanwhile; leaving the context puts it back.
        """
        self.look()
        self._guard.require_sole()
        self.apply()
        with deferred_signals():
            live = self._live()
            self._note_foreign({knob.name: says(live.get(knob.name)) for knob in self._not_ours(live)})
            # before the journal says so: whoever stands by inside of the server does not read it
            self._guard.closed(self._trial_id)
            self._journal(RecordKind.CONFIRMED, foreign=self.foreign_changes)
            try:
                self._guard.require_sole()
            except AlreadyRunning:
                # somebody may have put it back before the journal said confirmed
                self._journal(RecordKind.REOPENED)
                raise
            self._is_open = False

    def _write(self) -> None:
        self._may_be_written = True
        for knob in self._knobs:
            is_done = self._guard.actuator.write(knob.name, knob.new_value, only_if=partial(is_as_before, knob))
            if not is_done:
                raise self._foreign(knob.name, says(self._live().get(knob.name)))
        if self._needs_restart:
            self._guard.require_sole()
            self._guard.restart(self._old)
            self._guard.require_protection()
        elif not all(is_of_role(knob.name) for knob in self._knobs):
            self._guard.actuator.reload()

    def _verify(self) -> None:
        live = self._live()
        for knob in self._knobs:
            if knob.name not in live:
                raise ChangeRefused(
                    f"{described(knob.name)} was written, and cannot be read now.",
                    "See whether its role is there still, and whether somebody else gives it settings.",
                )
            require_effect(live[knob.name], knob.new_value)
        self._is_applied = True

    def _after(self, failure: BaseException) -> None:
        try:
            self._put_back()
        except GenesisError as second:
            failure.add_note(f"What was written could not be put back yet: {second}")

    def _put_back(self) -> None:
        self._is_applied = False
        result = put_back(self._guard.actuator, self._knobs, restart=self._guard.restart)
        self._may_be_written = False
        self._note_foreign(result.foreign)

    def _refuse_foreign(self, live: Mapping[str, Setting]) -> None:
        changed = {
            knob.name: says(live.get(knob.name))
            for knob in self._knobs
            if not is_as_before(knob, live.get(knob.name))
        }
        for name, text in changed.items():
            raise self._foreign(name, text)

    def _foreign(self, name: str, text: str) -> ForeignChange:
        self._note_foreign({name: text})
        return ForeignChange(
            f"{described(name)} was changed by somebody else during the trial: "
            f"{'the catalogue' if is_of_role(name) else 'postgresql.auto.conf'} says {text}.",
            "Nothing was written over it. Take what is in force now as the baseline, and begin again.",
        )

    def _not_ours(self, live: Mapping[str, Setting]) -> Iterable[KnobChange]:
        return (knob for knob in self._knobs if not is_ours(knob, live.get(knob.name)))

    def _note_foreign(self, foreign: Mapping[str, str]) -> None:
        self.foreign_changes |= foreign

    def _live(self) -> Mapping[str, Setting]:
        return self._guard.actuator.settings([knob.name for knob in self._knobs]) if self._knobs else {}

    def _journal(
        self,
        kind: RecordKind,
        knobs: Iterable[KnobChange] = (),
        *,
        foreign: Mapping[str, str] | None = None,
        terms: Terms | None = None,
    ) -> None:
        self._guard.journal.append(kind, self._trial_id, knobs, foreign=foreign, terms=terms)
