"""What no change may do, whoever proposes it: pure rules over a configuration and what is in force."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ml_postgres_optimization.errors import ChangeRefused
from ml_postgres_optimization.knobs.catalogue import Catalogue
from ml_postgres_optimization.knobs.configuration import RoleSetting
from ml_postgres_optimization.knobs.confrontation import largest_wal_mib
from ml_postgres_optimization.knobs.knob import Knob, KnobValue, Scope, Setting
from ml_postgres_optimization.knobs.machine import Machine
from ml_postgres_optimization.knobs.memory import MemoryForecast, allowed_bytes, predicted_peak_bytes
from ml_postgres_optimization.knobs.rendering import render, same_value
from ml_postgres_optimization.safety.permission import refusal
from ml_postgres_optimization.target.capabilities import Capabilities
from ml_postgres_optimization.target.seen import RoleSeen

_MIB = 1 << 20

# The first may not be larger than the second; PostgreSQL accepts each by itself, and misbehaves with both.
_ORDERED = (
    ("min_wal_size", "max_wal_size"),
    ("max_parallel_workers_per_gather", "max_parallel_workers"),
    ("max_parallel_workers", "max_worker_processes"),
    ("autovacuum_max_workers", "autovacuum_worker_slots"),
)
# What a role may be given for a while. In less than a tenth of a second nothing would get through; 0 lifts a limit.
_SHORTEST_MILLISECONDS = 100
_LONGEST_MILLISECONDS = {"idle_in_transaction_session_timeout": 3_600_000, "lock_timeout": 600_000}
CONSTRAINING_SETTINGS = frozenset(name for pair in _ORDERED for name in pair)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a configuration is reviewed against.

    Parameters
    ----------
    catalogue : Catalogue
        Confronted with the server.
    settings : mapping of str to Setting
        Live: `catalogue.settings_needed` and `CONSTRAINING_SETTINGS`, as far as the server has them.
    machine : Machine
    capabilities : Capabilities
    connections, active : int or None
        Sessions at once, and those in a query, at the peak; None where nobody knows better than the settings.
    roles : mapping of str to RoleSeen or None
        Those whose settings the owner lets us change; None for one that is not there.
    """

    catalogue: Catalogue
    settings: Mapping[str, Setting]
    machine: Machine
    capabilities: Capabilities
    connections: int | None = None
    active: int | None = None
    roles: Mapping[str, RoleSeen | None] = field(default_factory=dict)

    def forecast(self, values: Mapping[str, KnobValue]) -> MemoryForecast:
        """Predict the peak of memory with `values` over what is in force."""
        live = {name: setting.value for name, setting in self.settings.items()}
        return predicted_peak_bytes({**live, **values}, connections=self.connections, active=self.active)


def review(
    configuration: Mapping[str, KnobValue],
    circumstances: Circumstances,
    *,
    before: Mapping[str, KnobValue] | None = None,
) -> None:
    """Let a configuration pass, or say why it must not come into force.

    What is in force already is not a change, and passes with any value that is not forbidden.

    Parameters
    ----------
    configuration : mapping of str to KnobValue
    circumstances : Circumstances
    before : mapping of str to KnobValue, optional
        The configuration in force, for the knobs on our own side, of which the server knows nothing.

    Raises
    ------
    ChangeRefused
        If it sets what is forbidden, unknown, pinned, out of range or in need of a restart, what the role may not
        set, what does not go together, more WAL than half of the free disk, or more memory than is allowed.
    """
    for name, value in configuration.items():
        _refuse_forbidden(name, value, circumstances.catalogue)
    changed = _changed(configuration, circumstances)
    for name, value in changed.items():
        _refuse_knob(name, value, circumstances)
    for first, second in _ORDERED:
        if first in changed or second in changed:
            _refuse_disorder(first, second, configuration, circumstances.settings)
    _refuse_wal_beyond_disk(changed, circumstances)
    _refuse_memory(configuration, before or configuration, circumstances)


def _changed(configuration: Mapping[str, KnobValue], circumstances: Circumstances) -> dict[str, KnobValue]:
    settings = circumstances.settings
    return {
        name: value
        for name, value in configuration.items()
        if name not in settings or not same_value(value, settings[name].value, settings[name].kind)
    }


def _refuse_forbidden(name: str, value: KnobValue, catalogue: Catalogue) -> None:
    reason = catalogue.forbidden_reason(name, value)
    if reason:
        raise ChangeRefused(
            f"{name} = {render(value)} is refused: {reason}.",
            f"Take {name} out of the configuration; we never set it.",
        )


def _refuse_knob(name: str, value: KnobValue, circumstances: Circumstances) -> None:
    if setting := RoleSetting.of(name):
        _refuse_role_setting(setting, value, circumstances)
        return
    knob = circumstances.catalogue.get(name)
    if knob is None:
        reason = circumstances.catalogue.left_out.get(name, "it is not in the catalogue of knobs")
        raise ChangeRefused(f"{name} is not ours to tune here: {reason}.", f"Take {name} out of the configuration.")
    _refuse_value(knob, value)
    if name not in circumstances.catalogue.tunable:
        raise _not_without_restart(knob, value, may_restart=circumstances.catalogue.may_restart)
    refused = None if knob.scope is Scope.CLIENT else refusal(name, circumstances.capabilities)
    if refused:
        raise refused


def _refuse_role_setting(setting: RoleSetting, value: KnobValue, circumstances: Circumstances) -> None:
    """Let a time limit be given to a role that was named; whose settings are changed is never guessed."""
    role = setting.role
    if role not in circumstances.roles:
        raise ChangeRefused(f"{setting} is refused: nobody has named that role.", f"--prevent-role {role} does it.")
    seen = circumstances.roles[role]
    if seen is None or setting.key not in circumstances.settings:
        raise ChangeRefused(f"{setting} is refused: there is no such thing here.", "See how they are spelled.")
    if seen.is_superuser or seen.is_ours:
        whose = "a superuser" if seen.is_superuser else "the role that we work as"
        raise ChangeRefused(f"{setting} is refused: role {role} is {whose}.", "Name the role of an application.")
    if not seen.may_be_set:
        raise ChangeRefused(
            f"{setting} is refused: our role {circumstances.capabilities.role} may not give it settings.",
            f"Give our role CREATEROLE and, from PostgreSQL 16 on, the ADMIN OPTION on role {role}.",
        )
    longest = _LONGEST_MILLISECONDS.get(setting.name)
    if longest is None:
        allowed = ", ".join(_LONGEST_MILLISECONDS)
        raise ChangeRefused(f"{setting} is refused: of a role we set only {allowed}.", "Take it out.")
    if not _has_type(value, "integer") or not _SHORTEST_MILLISECONDS <= float(value) <= longest:
        raise ChangeRefused(
            f"{setting} = {render(value, 'ms')} is refused: it may be from {render(_SHORTEST_MILLISECONDS, 'ms')} "
            f"to {render(longest, 'ms')}.",
            "Choose a value of these, or take it out of the configuration.",
        )


def _not_without_restart(knob: Knob, value: KnobValue, *, may_restart: bool) -> ChangeRefused:
    if may_restart:
        return ChangeRefused(
            f"{knob.name} = {render(value, knob.unit)} is refused: it is advice only, and never set by us.",
            f"Take {knob.name} out of the configuration, or set it yourself and restart.",
        )
    return ChangeRefused(
        f"{knob.name} = {render(value, knob.unit)} needs a restart of the server, which nobody has allowed.",
        f"Take {knob.name} out of the configuration, allow restarts, or set it yourself and restart.",
    )


def _refuse_value(knob: Knob, value: KnobValue) -> None:
    if not _has_type(value, knob.kind):
        raise ChangeRefused(
            f"{knob.name} = {value!r} is refused: it takes a value of type {knob.kind}.",
            f"Give {knob.name} such a value, in {knob.unit or 'plain numbers'}, or take it out.",
        )
    if value in knob.special_values or knob.kind == "bool" or value in knob.choices:
        return
    if knob.kind == "enum" or not _within(value, knob):
        raise ChangeRefused(
            f"{knob.name} = {render(value, knob.unit)} is refused: it may be {_allowed(knob)}.",
            "Choose a value of these, or take it out of the configuration.",
        )


def _has_type(value: KnobValue, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "bool"
    if isinstance(value, str):
        return kind == "enum"
    return math.isfinite(value) and (kind == "real" or (kind == "integer" and float(value).is_integer()))


def _within(value: KnobValue, knob: Knob) -> bool:
    lowest, highest = _span(knob)
    return lowest <= float(value) <= highest


def _span(knob: Knob) -> tuple[float, float]:
    lowest = -math.inf if knob.minimum is None else knob.minimum
    return lowest, math.inf if knob.maximum is None else knob.maximum


def _allowed(knob: Knob) -> str:
    if knob.kind == "enum":
        return ", ".join(knob.choices)
    span = " to ".join(render(limit, knob.unit) for limit in _span(knob))
    return ", or ".join([f"from {span}", *(render(value, knob.unit) for value in knob.special_values)])


def _refuse_disorder(
    first: str, second: str, configuration: Mapping[str, KnobValue], settings: Mapping[str, Setting]
) -> None:
    if first not in settings or second not in settings:
        return
    low, high = (configuration.get(name, settings[name].value) for name in (first, second))
    if not isinstance(low, str) and not isinstance(high, str) and low > high:
        unit = settings[first].unit
        raise ChangeRefused(
            f"{first} = {render(low, unit)} is refused: it is more than {second}, which is {render(high, unit)}.",
            f"Lower {first}, or raise {second} with it.",
        )


def _refuse_wal_beyond_disk(changed: Mapping[str, KnobValue], circumstances: Circumstances) -> None:
    largest = largest_wal_mib(circumstances.machine)
    for name in ("max_wal_size", "min_wal_size"):
        live = circumstances.settings.get(name)
        if largest is None or live is None or name not in changed:
            continue
        if float(changed[name]) > max(largest, float(live.value)):
            raise ChangeRefused(
                f"{name} = {render(changed[name], 'MB')} is refused: half of the free disk is {largest:g} MB.",
                f"Make room on the disk, or lower {name}.",
            )


def _refuse_memory(
    configuration: Mapping[str, KnobValue], before: Mapping[str, KnobValue], circumstances: Circumstances
) -> None:
    """Hold to the limit; where what is in force is beyond it already, a change may still take it no further."""
    machine, limit = circumstances.machine, allowed_bytes(circumstances.machine)
    ours = {name: value for name, value in before.items() if name not in circumstances.settings}
    predicted, in_force = circumstances.forecast(configuration), circumstances.forecast(ours)
    if predicted.total_bytes <= max(limit, in_force.total_bytes):
        return
    raise ChangeRefused(
        f"This could take {_mib(predicted.total_bytes)} of memory, most for {predicted.largest_part}; the limit is "
        f"{_mib(limit)}, 80 % of {_mib(machine.memory_limit_bytes)} ({machine.memory_limit_source}).",
        "Lower work_mem, hash_mem_multiplier or maintenance_work_mem, or allow fewer sessions at once.",
    )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:,.0f} MB"
