"""Whether the server and its owner let us change a setting."""

from __future__ import annotations

from collections.abc import Iterable

from ml_postgres_optimization.errors import ChangeRefused
from ml_postgres_optimization.knobs.catalogue import Catalogue
from ml_postgres_optimization.knobs.confrontation import pinned_by
from ml_postgres_optimization.knobs.knob import KnobValue, Scope, Setting
from ml_postgres_optimization.knobs.rendering import render, same_value
from ml_postgres_optimization.target.capabilities import Capabilities

_FIRST_WITH_PARAMETER_GRANTS = 15


def refusal(name: str, capabilities: Capabilities) -> ChangeRefused | None:
    """Say why `name` may not be changed by ``ALTER SYSTEM`` here, and what would mend it; None where it may.

    Parameters
    ----------
    name : str
        A setting of the server.
    capabilities : Capabilities
    """
    if capabilities.managed_by:
        return ChangeRefused(
            f"{name} is not ours to set: {capabilities.managed_by} manages this server's configuration.",
            f"Set it through {capabilities.managed_by}, or tune a server that nobody else manages.",
        )
    if not capabilities.alter_system_allowed:
        return ChangeRefused(
            f"{name} cannot be set: ALTER SYSTEM is switched off on this server (allow_alter_system = off).",
            "Set allow_alter_system = on in postgresql.conf and reload, or let its owner set the value.",
        )
    if not has_parameter_grants(capabilities) and not capabilities.may_change(name):
        return ChangeRefused(  # before any grant is advised, since none would help
            f"Role {capabilities.role} may not change {name}.",
            f"PostgreSQL {capabilities.major} lets only superusers do it: connect as one.",
        )
    if not capabilities.settings_visible:
        return ChangeRefused(
            f"{name} could not be put back: role {capabilities.role} cannot see what postgresql.auto.conf says.",
            visibility_grants(capabilities),
        )
    if not capabilities.may_change(name):
        return ChangeRefused(f"Role {capabilities.role} may not change {name}.", change_grants([name], capabilities))
    return None


def has_parameter_grants(capabilities: Capabilities) -> bool:
    """Tell whether this version lets others than superusers change settings of the server."""
    return capabilities.major >= _FIRST_WITH_PARAMETER_GRANTS


def visibility_grants(capabilities: Capabilities) -> str:
    """Return what lets the role see what the configuration files say."""
    grantee = capabilities.grantee
    return (
        f"GRANT pg_read_all_settings TO {grantee}; GRANT SELECT ON pg_file_settings TO {grantee}; "
        f"GRANT EXECUTE ON FUNCTION pg_show_all_file_settings() TO {grantee};"
    )


def change_grants(names: Iterable[str], capabilities: Capabilities) -> str:
    """Return what lets the role change these settings, from PostgreSQL 15 on."""
    grantee = capabilities.grantee
    return (
        f"GRANT ALTER SYSTEM ON PARAMETER {', '.join(names)} TO {grantee}; "
        f"GRANT EXECUTE ON FUNCTION pg_reload_conf() TO {grantee};"
    )


def permitted(catalogue: Catalogue, capabilities: Capabilities) -> Catalogue:
    """Return `catalogue` without the knobs that we may not change here, each with the reason.

    Knobs on our own side, and those that are advice only, stay.
    """
    reasons = {
        name: refused.what
        for name, knob in catalogue.tunable.items()
        if knob.scope is not Scope.CLIENT and (refused := refusal(name, capabilities))
    }
    return catalogue.without(reasons)


def require_effect(setting: Setting, written: KnobValue) -> None:
    """See that a new session has what was written.

    Raises
    ------
    ChangeRefused
        If a setting of the role, of the database or of the command line wins over it.
    """
    if same_value(setting.value, written, setting.kind):
        return
    who = pinned_by(setting) or f"source {setting.source}"
    raise ChangeRefused(
        f"{setting.name} was written as {render(written, setting.unit)}, but a new session has "
        f"{render(setting.value, setting.unit)}: {who} wins over it.",
        f"RESET {setting.name} there, or leave it out of the trial; everything was put back.",
    )
