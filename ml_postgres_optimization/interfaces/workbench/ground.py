"""What may be tuned on the session's server, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.knobs.catalogue import Catalogue, load_catalogue
from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Configuration
from ml_postgres_optimization.knobs.knob import Setting
from ml_postgres_optimization.knobs.rules import RuleAdvice, rule_configuration
from ml_postgres_optimization.safety.guard import Guard
from ml_postgres_optimization.safety.journal import Journal
from ml_postgres_optimization.safety.permission import permitted
from ml_postgres_optimization.target.postgres.capabilities import require_writable_primary

_NOT_OURS = {CONCURRENCY: "the sessions are not ours: their number is set where they are made"}


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
    """

    session: Session
    catalogue: Catalogue
    settings: Mapping[str, Setting]
    connections: int | None

    @property
    def initial(self) -> Configuration:
        """What is in force."""
        return self.catalogue.configuration_of(self.settings, self._client)

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
        """Return `in_force` as the rules would have it."""
        return self.advice(in_force).configuration

    def guard(self, journal: Journal) -> Guard:
        """Return the only one who may change the server."""
        target = self.session.target
        return Guard(
            target,
            catalogue=self.catalogue,
            machine=target.machine,
            journal=journal,
            capabilities=target.capabilities,
        )

    @property
    def _client(self) -> dict[str, int]:
        return {} if self.connections is None else {CONCURRENCY: self.connections}


def survey(session: Session, *, connections: int | None = None) -> Ground:
    """Confront the catalogue with the server.

    Raises
    ------
    ReadOnlyServer
        If it is a standby, or read-only.
    """
    target = session.target
    require_writable_primary(target.capabilities)
    catalogue = load_catalogue(allowed_by_owner=session.settings.allow_knob)
    settings = target.settings(catalogue.settings_needed)
    fitting = permitted(catalogue.confront(settings, target.capabilities.major, target.machine), target.capabilities)
    return Ground(session, fitting if connections else fitting.without(_NOT_OURS), settings, connections)
