"""Whether the server and its owner let us change a setting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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


def fallback(capabilities: Capabilities) -> str:
    """Say in a phrase what is left where no setting of the server may be changed."""
    if capabilities.is_owner:
        return "optimize advises: as ALTER DATABASE … SET, which the owner may run, what a session can set for itself"
    return "optimize advises, and changes nothing of the server"


def visibility_grants(capabilities: Capabilities) -> str:
    """Return what lets the role see what the configuration files say."""
    grantee = capabilities.grantee
    return (
        f"GRANT pg_read_all_settings TO {grantee}; GRANT SELECT ON pg_file_settings TO {grantee}; "
        f"GRANT EXECUTE ON FUNCTION pg_show_all_file_settings() TO {grantee};"
    )


def guard_grants(capabilities: Capabilities) -> str:
    """Return what lets the guard session of a role that is no superuser connect to its own server, with a warning.

    What it needs lets the role in as whoever ``pg_hba.conf`` lets the server's own account in without a password.

    References
    ----------
    PostgreSQL manual, ``dblink_connect_u``.
    """
    schema = '"' + capabilities.extensions["dblink"][1].replace('"', '""') + '"'
    grantee = capabilities.grantee
    return (
        f"GRANT USAGE ON SCHEMA {schema} TO {grantee}; "
        f"GRANT EXECUTE ON FUNCTION {schema}.dblink_connect_u(text, text) TO {grantee}; "
        "-- and in pg_hba.conf let this role, and no superuser, in from the server's own account without a password"
    )


def change_grants(names: Iterable[str], capabilities: Capabilities) -> str:
    """Return what lets the role change these settings, from PostgreSQL 15 on."""
    grantee = capabilities.grantee
    return (
        f"GRANT ALTER SYSTEM ON PARAMETER {', '.join(names)} TO {grantee}; "
        f"GRANT EXECUTE ON FUNCTION pg_reload_conf() TO {grantee};"
    )


def grantable(catalogue: Catalogue, settings: Mapping[str, Setting]) -> list[str]:
    """Return the settings that whoever tunes this server must be able to change: our knobs that need no restart here.

    Parameters
    ----------
    catalogue : Catalogue
    settings : mapping of str to Setting
        Live; `catalogue.settings_needed` at least.
    """
    fixed = {"internal", "postmaster"}
    return sorted(name for name in catalogue.keys() & settings.keys() if settings[name].context not in fixed)


def permitted(catalogue: Catalogue, capabilities: Capabilities) -> Catalogue:
    """Return `catalogue` without the knobs that we may not change here, each with the reason.

    Knobs on our own side, and those that are advice only, stay.
    """
    reasons = {
        name: reason
        for name, knob in catalogue.tunable.items()
        if knob.scope is not Scope.CLIENT and (reason := _kept_from(name, capabilities))
    }
    return catalogue.without(reasons)


def _kept_from(name: str, capabilities: Capabilities) -> str | None:
    if refused := refusal(name, capabilities):
        return refused.what
    if capabilities.reaches_nobody(name):
        workers = ", ".join(sorted(capabilities.workers))
        return f"ALTER ROLE or ALTER DATABASE gives all who work here ({workers}) a value of their own, which wins"
    return None


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
