"""Advice where we may not set anything of the server: in the words of whoever may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ml_postgres_optimization.interfaces.reporter import Result
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.workbench.ground import survey
from ml_postgres_optimization.knobs.dialects import Item, accepted_by, alter_database, alter_system, in_the_words_of
from ml_postgres_optimization.knobs.knob import KnobValue
from ml_postgres_optimization.knobs.rules import SIZED_BY_MEMORY
from ml_postgres_optimization.safety.permission import has_parameter_grants
from ml_postgres_optimization.target.capabilities import Capabilities
from ml_postgres_optimization.target.postgres.connection.settings import on_one_line

_MEMORY_UNKNOWN = (
    "How much memory it has cannot be seen from here, so nothing that is sized by it is advised: say it by "
    "--memory-limit-bytes."
)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What others may set, since we may not.

    Parameters
    ----------
    because : str
        Why we may not.
    lines : tuple of str
        The way of whoever manages the server, or the statements that a superuser can run.
    database_lines : tuple of str
        What the owner of the database can run, for new sessions of it; empty where our role is not the owner.
    items : tuple of Item
    reasons : mapping of str to str
        Why each is advised.
    left_out : mapping of str to str
        The settings that are not tuned here, with the reason.
    """

    because: str
    lines: tuple[str, ...]
    database_lines: tuple[str, ...]
    items: tuple[Item, ...]
    reasons: Mapping[str, str]
    left_out: Mapping[str, str]

    @property
    def document(self) -> dict[str, object]:
        """The same for programs."""
        return {
            "because": self.because,
            "way": list(self.lines),
            "sql": list(self.database_lines),
            "for_the_whole_server_only": self.beyond_the_database,
            "settings": {item.name: item.text for item in self.items},
            "reasons": dict(self.reasons),
            "left_out": dict(self.left_out),
        }

    @property
    def text(self) -> list[str]:
        """The same for people, most of it ready to be run."""
        if not self.items:
            return [f"-- {self.because}", "-- The rules advise nothing else than what is in force."]
        text = [f"-- {self.because}", "-- Advised by the rules, tried by nobody:", *self.lines]
        if self.database_lines:
            text += ["-- Or for new sessions of this database alone, as its owner may:", *self.database_lines]
            if beyond := self.beyond_the_database:
                text.append(f"-- For the whole server only: {', '.join(beyond)}")
        return text

    @property
    def beyond_the_database(self) -> list[str]:
        """What ``ALTER DATABASE`` does not reach, since no session can set it for itself."""
        return [item.name for item in self.items if not item.is_sessions_own]


def is_left_to_others(capabilities: Capabilities) -> bool:
    """Tell whether no setting of the server at all is ours to change."""
    if capabilities.managed_by or not capabilities.alter_system_allowed or not capabilities.may_reload:
        return True
    return not (capabilities.may_alter_system and capabilities.settings_visible)


def advise_elsewhere(session: Session) -> Elsewhere:
    """Return what the rules say of this server, restarts included, in the words of whoever may set it.

    Raises
    ------
    ReadOnlyServer
        If it is a standby, or read-only.
    """
    capabilities = session.target.capabilities
    ground = survey(session, is_permitted=False)
    advice = ground.advice()
    online = advice.configuration.difference(ground.initial)
    values: dict[str, KnobValue] = {name: new for name, (_, new) in online.items() if new is not None}
    values |= advice.restart_advice
    unsized = SIZED_BY_MEMORY if _is_memory_unknown(session) else frozenset()
    values, differing = accepted_by(
        capabilities.managed_by,
        {name: value for name, value in values.items() if name not in unsized},
        session.target.machine.memory_limit_bytes,
    )
    reasons = {**advice.reasons, **differing}
    items = tuple(Item.of(ground.settings[name], value) for name, value in values.items() if name in ground.settings)
    return Elsewhere(
        on_one_line(_because(capabilities) + (f" {_MEMORY_UNKNOWN}" if unsized else "")),
        _lines(items, capabilities),
        alter_database(items, capabilities.database) if capabilities.is_owner else (),
        items,
        {item.name: reasons[item.name] for item in items if item.name in reasons},
        {name: refused.what for name, refused in ground.refused.items()} | dict.fromkeys(unsized, _MEMORY_UNKNOWN),
    )


def _is_memory_unknown(session: Session) -> bool:
    """Tell whether memory is only guessed from shared_buffers, which a service chooses by rules of its own."""
    is_guessed = session.target.machine.memory_limit_source == "assumed"
    return is_guessed and bool(session.target.capabilities.managed_by)


def told_elsewhere(session: Session, *, exit_code: int = 0) -> Result:
    """Return that advice as what a command gives back."""
    told = advise_elsewhere(session)
    return Result(told.document | {"trials": []}, (), told.text, exit_code)


def _because(capabilities: Capabilities) -> str:
    if capabilities.managed_by:
        return f"{capabilities.managed_by} manages the settings of this server, so none is tuned by us."
    if not capabilities.alter_system_allowed:
        return "ALTER SYSTEM is switched off on this server (allow_alter_system = off), so no setting is tuned by us."
    if not has_parameter_grants(capabilities):
        return (
            f"PostgreSQL {capabilities.major} lets only superusers change settings of the server, and role "
            f"{capabilities.role} is none, so none is tuned by us."
        )
    return (
        f"Role {capabilities.role} may not change settings of the server, or not see what would be put back, so none "
        "is tuned by us; genesis-pg doctor says the GRANT that mends it."
    )


def _lines(items: tuple[Item, ...], capabilities: Capabilities) -> tuple[str, ...]:
    if capabilities.managed_by or not capabilities.alter_system_allowed:
        return in_the_words_of(capabilities.managed_by, items)
    return alter_system(items) if items else ()
