"""What may be tuned on the session's server, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ml_postgres_optimization.errors import ChangeRefused
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.workbench.load import CONNECTIONS_KEPT_FREE
from ml_postgres_optimization.knobs.catalogue import Catalogue, load_catalogue
from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Configuration
from ml_postgres_optimization.knobs.confrontation import recovery_caps
from ml_postgres_optimization.knobs.knob import Scope, Setting
from ml_postgres_optimization.knobs.rules import RuleAdvice, rule_configuration
from ml_postgres_optimization.safety.consent import Consent
from ml_postgres_optimization.safety.guard import Guard
from ml_postgres_optimization.safety.journal import Journal, read_journal
from ml_postgres_optimization.safety.permission import permitted, refusal
from ml_postgres_optimization.target.capabilities import Capabilities
from ml_postgres_optimization.target.postgres.capabilities import require_writable_primary

_NOT_OURS = {CONCURRENCY: "the sessions are not ours: their number is set where they are made"}

# A trial that is open for longer than the whole run was to take hangs.
_LONGEST_OF_DURATION, _LONGEST_MORE_SECONDS = 1.5, 1800.0

_NOT_TUNED = {CONCURRENCY: "how many users there are is part of the workload"}


@dataclass(frozen=True, slots=True)
class Ground:
    """The knobs that count here, and their live settings.

    Parameters
    ----------
    session : Session
    catalogue : Catalogue
        Confronted with the server; without what our role may not change.
    settings : mapping of str to Setting
    connections : int or None
        Of our own load's plain pool; None where no load is ours.
    concurrency : int or None
        The limit of our own load that is in force: that of the last promoted trial, else the plain pool's.
    """

    session: Session
    catalogue: Catalogue
    settings: Mapping[str, Setting]
    connections: int | None = None
    concurrency: int | None = None

    @property
    def initial(self) -> Configuration:
        """What is in force."""
        client = {} if self.concurrency is None else {CONCURRENCY: self.concurrency}
        return self.catalogue.configuration_of(self.settings, client)

    def advice(self, in_force: Configuration | None = None) -> RuleAdvice:
        """Return what the rules say of this machine, given how many of our own operations run at once."""
        limit = None if in_force is None else in_force.get(CONCURRENCY)
        return rule_configuration(
            self.session.target.machine,
            self.catalogue,
            self.settings,
            connections=self.connections,
            active=None if limit is None else int(limit),
        )

    def advised(self, in_force: Configuration) -> Configuration:
        """Return `in_force` as the rules would have it; what they say nothing of stays, whoever has found it."""
        told = self.advice(in_force).configuration
        return in_force.replaced({name: told[name] for name in told.difference(self.initial) if name in told})

    @property
    def refused(self) -> Mapping[str, ChangeRefused]:
        """The server's settings that could be tuned without a restart, and that we may not change here, with why."""
        capabilities = self.session.target.capabilities
        known = (name for name, knob in load_catalogue().online.items() if knob.scope is not Scope.CLIENT)
        here = (name for name in known if name in self.settings)
        return {name: refused for name in here if (refused := refusal(name, capabilities))}

    def guard(
        self, journal: Journal, consent: Consent | None = None, *, longest_seconds: float | None = None
    ) -> Guard:
        """Return the only one who may change the server; without `consent` at the owner's own command.

        A change may be open for `longest_seconds`; by default as the command's duration has it.
        """
        target = self.session.target
        if longest_seconds is None:
            longest_seconds = _LONGEST_OF_DURATION * self.session.settings.duration_seconds + _LONGEST_MORE_SECONDS
        return Guard(
            target,
            catalogue=self.catalogue,
            machine=target.machine,
            journal=journal,
            capabilities=target.capabilities,
            connections=self.connections,
            is_sole=self.session.is_sole_optimizer,
            over_a_restart=self.session.over_a_restart,
            protection=self.session.lease,
            consent=consent,
            longest_seconds=longest_seconds,
            roles=self.session.settings.prevent_role,
        )


def survey(
    session: Session, *, connections: int | None = None, is_offline: bool = False, is_permitted: bool = True
) -> Ground:
    """Confront the catalogue with the server.

    Parameters
    ----------
    session : Session
    connections : int, optional
        Of our own load; None where no load is ours.
    is_offline : bool
        Whether the server is tuned for a workload that nobody relies on meanwhile: the embedded one may be restarted
        then, and how many users there are is part of the workload.
    is_permitted : bool
        Whether only what our role may change counts; otherwise what others may change does too.

    Raises
    ------
    ReadOnlyServer
        If it is a standby, or read-only.
    """
    target = session.target
    require_writable_primary(target.capabilities)
    catalogue = replace(
        load_catalogue(allowed_by_owner=session.settings.allow_knob),
        may_restart=session.may_restart or (is_offline and session.embedded),
    )
    settings = target.settings(catalogue.settings_needed)
    known = catalogue.confront(settings, target.capabilities.major, target.machine)
    caps = recovery_caps(session.settings.maximum_recovery_seconds) | _session_cap(target.capabilities)
    within = known.capped(caps)
    fitting = permitted(within, target.capabilities) if is_permitted else within
    if connections is None:
        return Ground(session, fitting.without(_NOT_OURS), settings)
    if is_offline:
        return Ground(session, fitting.without(_NOT_TUNED), settings, connections)
    return Ground(session, fitting, settings, connections, promoted_concurrency(session) or connections)


def _session_cap(capabilities: Capabilities) -> dict[str, float]:
    limit = capabilities.connection_limit
    return {} if limit is None else {CONCURRENCY: max(1, limit - CONNECTIONS_KEPT_FREE)}


def promoted_concurrency(session: Session) -> int | None:
    """Return the limit of our own load that the last promoted trial in force kept; None where there was none.

    The server does not know of it: the journal says which trials are in force, the repository what they set.
    """
    in_force = {trial.intent.trial_id for trial in read_journal(session.home.of_server(session.server)).confirmed}
    for trial in reversed(session.repository().trials()):
        if trial.id in in_force and CONCURRENCY in trial.candidate:
            return int(trial.candidate[CONCURRENCY])
    return None
