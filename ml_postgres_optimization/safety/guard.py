"""The one that lets a configuration come into force: what is allowed, by whom, and who stands by meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from ml_postgres_optimization.errors import AlreadyRunning, ChangeRefused, ForeignChange
from ml_postgres_optimization.knobs.catalogue import Catalogue
from ml_postgres_optimization.knobs.configuration import Change, Configuration, RoleSetting, described
from ml_postgres_optimization.knobs.knob import Setting
from ml_postgres_optimization.knobs.machine import Machine
from ml_postgres_optimization.knobs.rendering import render, rounded, same_value
from ml_postgres_optimization.safety.consent import Consent
from ml_postgres_optimization.safety.constraints import CONSTRAINING_SETTINGS, Circumstances, review
from ml_postgres_optimization.safety.guarded_change import GuardedChange
from ml_postgres_optimization.safety.journal import Journal, KnobChange, Terms
from ml_postgres_optimization.safety.undo import needs_restart
from ml_postgres_optimization.target.capabilities import Capabilities
from ml_postgres_optimization.target.protocols import Actuator


class Protection(Protocol):
    """Those who put back what is on trial when we no longer can."""

    def arm(self, knobs: Sequence[KnobChange], longest_seconds: float) -> Terms:
        """Have them stand by for these changes, in this order, and return who does.

        Raises
        ------
        TargetError
            If nobody does.
        """

    def ensure(self) -> Terms:
        """See that they still do; in the place of whom was lost put another.

        Raises
        ------
        TargetError
            If nobody does.
        """

    def let_restart(self) -> None:
        """Know that a restart of the server comes that is no failure, until `ensure`.

        Raises
        ------
        TargetError
            If somebody who would take it for one cannot be told.
        """

    def remain(self) -> None:
        """Know that something stays on trial which we could not put back: they stand by for it beyond our end."""

    def disarm(self) -> None:
        """Have them stand by for nothing.

        Raises
        ------
        TargetError
            If somebody cannot be told so.
        """


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
    protection : Protection, optional
        Armed before anything is written.
    consent : Consent, optional
        What the server's owner allows, and when; asked before a trial is begun, and while it runs. Never before
        something is put back.
    longest_seconds : float
        How long a trial may be open before those who stand by put it back, even though they hear from us.
    roles : collection of str
        Whose settings may be changed, named one by one by the server's owner.

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
        protection: Protection | None = None,
        consent: Consent | None = None,
        longest_seconds: float = math.inf,
        roles: Collection[str] = (),
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
        self._protection = protection
        self.consent = consent
        self._longest_seconds = longest_seconds
        self._roles = frozenset(roles)
        self._open: dict[str, tuple[KnobChange, ...]] = {}
        self._has_left = False

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
        roles = {each.role for name in configuration if (each := RoleSetting.of(name))} & self._roles
        return Circumstances(
            self.catalogue,
            settings,
            self.machine,
            self.capabilities,
            self._connections,
            self._active,
            {role: self.actuator.role(role) for role in roles},
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
        NotNow
            If the server's owner does not allow it now.
        """
        if self.consent is not None:
            self.consent.require(change.after)
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
        if self._protection is not None:
            self._protection.let_restart()
        with self._over_a_restart():
            self.actuator.restart(rescue)

    def opened(self, trial_id: str, knobs: tuple[KnobChange, ...]) -> Terms | None:
        """Know a trial of ours as open, so that others may be opened inside of it; return under what it is held.

        Raises
        ------
        TargetError
            If nobody does, though somebody should.
        """
        self._open[trial_id] = knobs
        return self._arm()

    def closed(self, trial_id: str) -> None:
        """Know it as closed."""
        if self._open.pop(trial_id, None) is not None:
            self._arm()

    def left(self, trial_id: str) -> None:
        """Know that it could not be put back: from now on whoever stands by goes on standing by for all of it."""
        self._open.pop(trial_id, None)
        self._has_left = True
        if self._protection is not None:
            self._protection.remain()

    def do_for_good(self, deed: Callable[[], bool]) -> bool:
        """Let something be done that nobody can take back, by a permission of the owner's that the caller has.

        The journal says nothing of it, since it could not be put back.

        Raises
        ------
        NotNow
            If the owner has called a halt, or the time for changes is over.
        AlreadyRunning
            If the optimiser's lock was lost.
        TargetError
            As the deed does.
        """
        if self.consent is not None:
            self.consent.look()
        self.require_sole()
        return deed()

    def look(self, configuration: Configuration, needed_seconds: float = 0.0) -> None:
        """See that `configuration` may be in force, for so long at least.

        Raises
        ------
        NotNow
            If the server's owner has called a halt or declined it, or the time for changes is over.
        """
        if self.consent is not None:
            self.consent.look(configuration, needed_seconds=needed_seconds)

    def require_protection(self) -> None:
        """See that somebody stands by, where somebody should.

        Raises
        ------
        TargetError
        """
        if self._protection is not None:
            self._protection.ensure()

    def _arm(self) -> Terms | None:
        """Have the protection stand by for all that is open, to be put back the newest first."""
        if self._protection is None or self._has_left:
            return None
        knobs = [knob for opened in reversed(self._open.values()) for knob in opened]
        if not knobs:
            self._protection.disarm()
            return None
        return self._protection.arm(knobs, self._longest_seconds)

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
            f"{described(setting.name)} is {render(setting.value, setting.unit)} on the server, and "
            f"{render(expected, setting.unit)} in the baseline: somebody else has changed it.",
            "Take what is in force now as the baseline, and begin again.",
        )
    new_value = rounded(change.after[setting.name], setting.kind)
    return KnobChange(setting.name, setting.written_value, setting.value, new_value)
