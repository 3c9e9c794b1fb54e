"""The one that changes a tuned system: review, journal, apply, verify, and put back whatever comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Self

from ml_postgres_optimization.errors import AlreadyRunning, ChangeRefused, ForeignChange, GenesisError
from ml_postgres_optimization.knobs.catalogue import Catalogue
from ml_postgres_optimization.knobs.configuration import Change, Configuration
from ml_postgres_optimization.knobs.knob import Setting
from ml_postgres_optimization.knobs.machine import Machine
from ml_postgres_optimization.knobs.rendering import render, rounded, same_value, written_text
from ml_postgres_optimization.safety.constraints import CONSTRAINING_SETTINGS, Circumstances, review
from ml_postgres_optimization.safety.deferral import deferred_signals
from ml_postgres_optimization.safety.journal import Journal
from ml_postgres_optimization.safety.permission import require_effect
from ml_postgres_optimization.safety.records import KnobChange, RecordKind
from ml_postgres_optimization.safety.undo import is_as_before, is_ours, needs_restart, put_back, says
from ml_postgres_optimization.target.capabilities import Capabilities
from ml_postgres_optimization.target.protocols import Actuator


class Guard:
    """Let configurations into force on one server, one trial at a time.

    Parameters
    ----------
    actuator : Actuator
        Its ``write``, ``restore`` and ``reload`` are called from here (and from `undo`) only.
    catalogue : Catalogue
        Confronted with this server.
    machine : Machine
    journal : Journal
        Of this server.
    capabilities : Capabilities
        What our role may change, and whether it can see what it would have to put back.
    connections, active : int, optional
        Sessions at once, and those in a query, at the peak, for the memory rule; the settings' own limits otherwise.
    is_sole : callable, optional
        Whether the lock of the one optimiser is still held; asked before anything is put in force, never before
        something is put back.
    over_a_restart : callable, optional
        Returns the context of a restart of the server, which ends the session that holds that lock.

    Notes
    -----
    Not for several threads at once. Our reload also brings into force what somebody else has written into the
    configuration files and not reloaded yet.
    """

    def __init__(
        self,
        actuator: Actuator,
        *,
        catalogue: Catalogue,
        machine: Machine,
        journal: Journal,
        capabilities: Capabilities,
        connections: int | None = None,
        active: int | None = None,
        is_sole: Callable[[], bool] | None = None,
        over_a_restart: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.actuator = actuator
        self.catalogue = catalogue
        self.journal = journal
        self.capabilities = capabilities
        self.machine = machine
        self._connections = connections
        self._active = active
        self._is_sole = is_sole
        self._over_a_restart = over_a_restart
        self._open: list[str] = []

    def circumstances(self, configuration: Iterable[str] = ()) -> Circumstances:
        """Read what a review needs; then many configurations can be reviewed by `constraints.review` at no cost.

        Parameters
        ----------
        configuration : iterable of str
            Names beyond those of the catalogue.

        Raises
        ------
        TargetError
            If the server is away.
        """
        settings = self.actuator.settings({*self.catalogue.settings_needed, *CONSTRAINING_SETTINGS, *configuration})
        return Circumstances(
            self.catalogue, settings, self.machine, self.capabilities, self._connections, self._active
        )

    def review(self, configuration: Configuration, *, before: Configuration | None = None) -> None:
        """Let a configuration pass, or say why it must not come into force; changes nothing.

        Raises
        ------
        ChangeRefused
            See `constraints.review`.
        TargetError
            If the server is away.
        """
        review(configuration, self.circumstances(configuration), before=before)

    def trial(self, change: Change, trial_id: str) -> GuardedChange:
        """Return the context in which `change.after` may be put in force and taken back.

        One may be opened inside of another whose candidate is in force, and has to be closed before it: what is left
        by a kill is undone in the same order, the newest first.

        Parameters
        ----------
        change : Change
            `before` is what is in force. Knobs on our own side are reviewed, and left to the caller to set.
        trial_id : str
            Unique for the server.
        """
        return GuardedChange(self, change, trial_id)

    def intended(self, change: Change) -> tuple[KnobChange, ...]:
        """Review `change`, and return what it takes to put it in force and to put everything back.

        Raises
        ------
        ChangeRefused
            If the review refuses it, an earlier trial is unfinished, `change.before` is not what is in force, or the
            server would not start with it.
        """
        self._refuse_unfinished()
        circumstances = self.circumstances(change.after)
        review(change.after, circumstances, before=change.before)
        live = circumstances.settings
        changed = [
            name
            for name, value in change.after.items()
            if name in live and not same_value(value, live[name].value, live[name].kind)
        ]
        self._rehearse(change.after, changed, live)
        return tuple(_knob_change(live[name], change) for name in changed)

    def restart(self, rescue: Mapping[str, str | None]) -> None:
        """Restart the server, and take the lock of the one optimiser again.

        Raises
        ------
        ChangeRefused, TargetError
            See `Actuator.restart`.
        AlreadyRunning
            If another optimiser has the lock by now.
        """
        with self._over_a_restart():
            self.actuator.restart(rescue)

    def opened(self, trial_id: str) -> None:
        """Know a trial of ours as open, so that others may be opened inside of it."""
        self._open.append(trial_id)

    def closed(self, trial_id: str) -> None:
        """Know it as closed."""
        self._open.remove(trial_id)

    def _rehearse(self, after: Configuration, changed: Iterable[str], live: Mapping[str, Setting]) -> None:
        """See that the server would start with all that only a start brings, together."""
        if any(needs_restart(live[name]) for name in changed):
            self.actuator.rehearse(
                {name: after[name] for name in after if name in live and needs_restart(live[name])}
            )

    def require_sole(self) -> None:
        """Refuse to go on where another optimiser may work on the server by now.

        Raises
        ------
        AlreadyRunning
        """
        if self._is_sole is not None and not self._is_sole():
            raise AlreadyRunning(
                "The lock of the one optimiser is lost, since its session ended: another may be at work by now.",
                "Start again; what was on trial is put back.",
            )

    def _refuse_unfinished(self) -> None:
        for trial in self.journal.state.unfinished:
            if trial.intent.trial_id in self._open:
                continue
            raise ChangeRefused(
                f"Trial {trial.intent.trial_id} of {trial.intent.at} is not finished; it may be in force.",
                "Start again, or roll back: any start of ours undoes it first.",
            )


def _knob_change(setting: Setting, change: Change) -> KnobChange:
    expected = change.before.get(setting.name)
    if expected is not None and not same_value(expected, setting.value, setting.kind):
        raise ForeignChange(
            f"{setting.name} is {render(setting.value, setting.unit)} on the server, and "
            f"{render(expected, setting.unit)} in the baseline: somebody else has changed it.",
            "Take what is in force now as the baseline, and begin again.",
        )
    new_value = rounded(change.after[setting.name], setting.kind)
    return KnobChange(setting.name, setting.written_value, setting.value, new_value)


class GuardedChange:
    """A trial's change: in force between `apply` and `withdraw`, as often as wanted, and for good after `confirm`.

    Entering reviews the change and journals what is intended, before anything is written. Leaving without `confirm`
    puts everything back, whatever the reason; where the server is away at that moment, the next start does it.

    Attributes
    ----------
    foreign_changes : mapping of str to str
        Knobs that somebody else changed meanwhile, and that were left alone → what the file says of them.
    """

    def __init__(self, guard: Guard, change: Change, trial_id: str) -> None:
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
                self._guard.opened(self._trial_id)
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
            except GenesisError as failure:
                if error is None:
                    raise
                error.add_note(f"Trial {self._trial_id} stays unfinished, and the next start undoes it: {failure}")
            finally:
                self._guard.closed(self._trial_id)

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
        """
        if self._is_applied:
            return
        self._guard.require_sole()
        with deferred_signals():
            if self._may_be_written:
                self._put_back()
            self._refuse_foreign(self._live())
            try:
                self._write()
            except BaseException as failure:
                self._after(failure)
                raise
            self._journal(RecordKind.APPLIED)

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
        return {knob.name: knob.old_written for knob in self._knobs}

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
        with deferred_signals():
            try:
                self._guard.restart(self._old if self._is_applied else {})
            except BaseException as failure:
                if self._is_applied:
                    self._after(failure)
                raise

    def session_settings(self, configuration: Configuration) -> dict[str, str]:
        """Return what a session has to SET for itself to run under the baseline or the candidate."""
        is_after = configuration == self._change.after
        return {knob.name: written_text(knob.new_value if is_after else knob.old_value) for knob in self._knobs}

    def confirm(self) -> None:
        """Leave the candidate in force for good; put it in force first, where it is not."""
        self._guard.require_sole()
        self.apply()
        with deferred_signals():
            live = self._live()
            self._note_foreign({knob.name: says(live.get(knob.name)) for knob in self._not_ours(live)})
            self._journal(RecordKind.CONFIRMED, foreign=self.foreign_changes)
            self._is_open = False
            self._guard.closed(self._trial_id)

    def _write(self) -> None:
        self._may_be_written = True
        for knob in self._knobs:
            self._guard.actuator.write(knob.name, knob.new_value)
        if self._needs_restart:
            self._guard.restart(self._old)
        elif self._knobs:
            self._guard.actuator.reload()
        live = self._live()
        for knob in self._knobs:
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
        self._note_foreign(changed)
        for name, text in changed.items():
            raise ForeignChange(
                f"{name} was changed by somebody else during the trial: postgresql.auto.conf says {text}.",
                "Nothing was written over it. Take what is in force now as the baseline, and begin again.",
            )

    def _not_ours(self, live: Mapping[str, Setting]) -> Iterable[KnobChange]:
        return (knob for knob in self._knobs if not is_ours(knob, live.get(knob.name)))

    def _note_foreign(self, foreign: Mapping[str, str]) -> None:
        self.foreign_changes |= foreign

    def _live(self) -> Mapping[str, Setting]:
        return self._guard.actuator.settings([knob.name for knob in self._knobs]) if self._knobs else {}

    def _journal(
        self, kind: RecordKind, knobs: Iterable[KnobChange] = (), foreign: Mapping[str, str] | None = None
    ) -> None:
        self._guard.journal.append(kind, self._trial_id, knobs, foreign)
