"""What can be chosen from outside: flags first, then the environment, then the defaults."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import tzinfo
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from tzlocal import get_localzone

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.safety.consent import ChangeWindows, parse_windows

# A year: what is longer was mistyped.
LONGEST_HOURS = 8_784.0
LARGEST_SCALE = 10_000
# PostgreSQL takes whole milliseconds, and 0 for none at all.
_LEAST_TIMEOUT_SECONDS, _LONGEST_TIMEOUT_SECONDS = 0.001, 86_400.0
# Options that are not called as their setting.
_OPTIONS = {
    "duration_hours": "--duration",
    "query_timeout_seconds": "--query-timeout",
    "block_seconds": "--seconds",
}
LevelName = Literal["BASIC", "MEDIUM", "HIGH", "EXTREME"]
_LONGEST_BLOCK_SECONDS = 3_600.0
Objective = Literal["mean", "p95", "p99", "throughput"]
Action = Literal["auto", "approve", "advise"]
Prevention = Literal["act", "advise", "off"]


def _positive(value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError("must be a number above 0")
    return value


def _hours(value: float) -> float:
    if _positive(value) > LONGEST_HOURS:
        raise ValueError(f"must be at most {LONGEST_HOURS:g} hours, a year")
    return value


def _ratio(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError("must lie between 0 and 1")
    return value


def _timeout(value: float) -> float:
    if not _LEAST_TIMEOUT_SECONDS <= _positive(value) <= _LONGEST_TIMEOUT_SECONDS:
        raise ValueError(f"must be from {_LEAST_TIMEOUT_SECONDS:g} to {_LONGEST_TIMEOUT_SECONDS:,.0f} seconds, a day")
    return value


def _minutes(value: float) -> float:
    return _hours(value / 60) * 60


def _block(value: float) -> float:
    if _positive(value) > _LONGEST_BLOCK_SECONDS:
        raise ValueError(f"must be at most {_LONGEST_BLOCK_SECONDS:,.0f} seconds, an hour")
    return value


def _once_each(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or len(set(value)) < len(value):
        raise ValueError("must name at least one, each once")
    return value


def _separated(value: object) -> object:
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


def _windows(value: object) -> str:
    """Take windows for changes from one option each, or from the environment in one line."""
    text = value if isinstance(value, str) else "; ".join(map(str, value if isinstance(value, Iterable) else [value]))
    if not parse_windows(text, _local_zone).windows and value != "":
        # an option from a shell's variable that is not set, say: it would lift every limit
        raise ValueError("must name a time, or not be given at all")
    return text


def _local_zone() -> tzinfo:
    try:
        return get_localzone()
    except (LookupError, OSError, ValueError) as error:
        raise ValueError("the time zone of this machine is not known: name one, 22:00-05:00 UTC for one") from error


def _scale(value: float) -> float:
    if _positive(value) > LARGEST_SCALE:
        raise ValueError(f"must be at most {LARGEST_SCALE:,}, which is about 1 TB")
    return value


Positive = Annotated[float, AfterValidator(_positive)]
Scale = Annotated[float, AfterValidator(_scale)]
Hours = Annotated[float, AfterValidator(_hours)]
Timeout = Annotated[float, AfterValidator(_timeout)]
Ratio = Annotated[float, AfterValidator(_ratio)]
Days = Annotated[int, Field(ge=1, le=36_500)]
Clients = Annotated[int, Field(ge=1, le=10_000)]
Trials = Annotated[int, Field(ge=1, le=1_000_000)]
Blocks = Annotated[int, Field(ge=1, le=1_000)]
BlockSeconds = Annotated[float, AfterValidator(_block)]
Minutes = Annotated[float, AfterValidator(_minutes)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Bytes = Annotated[int, Field(gt=0)]
# in the environment: separated by semicolons
Windows = Annotated[str, NoDecode, BeforeValidator(_windows)]
# in the environment: separated by commas
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_separated)]
Levels = Annotated[tuple[LevelName, ...], NoDecode, BeforeValidator(_separated), AfterValidator(_once_each)]


class Settings(BaseSettings):
    """Everything that a user can choose; each field is also ``GENESIS_<FIELD>`` in the environment.

    Parameters
    ----------
    dsn : str or None
        The server to tune, as URI or keywords; never with a password in the environment of others: use ``.pgpass``.
    repository : str or None
        Where schema genesis stands, when not in the tuned database.
    pg_bin : Path or None
        The ``bin`` folder of the PostgreSQL that the embedded server runs.
    duration_hours : float
    simulate : bool
        Whether load of ours may run on a server of the user's.
    scale : float or None
        Size of our own tables; see `table_scale` and `workload.workload_named` for what stands in for None.
    level : str
        Offered load of ours, by the mission's levels.
    objective : str
        What a trial compares.
    continuous : bool
        Whether an optimisation goes on watching after it is done; without a duration until it is stopped.
    trials : int or None
        How many trials an optimisation may hold before its proof; as many as its time allows where None.
    action : str
        Whether a proposal is tried at once, waits for the owner's word, or is told only.
    window : str
        When the server may be changed, as `safety.consent.parse_windows` reads it; at any time where empty.
    objective_limit_milliseconds : float or None
        A response that must not be exceeded, by the objective's measure; only a continuous run acts on it.
    window_seconds : float
    criteria : Path or None
        What an extended test must hold, a TOML file.
    minimum_success_ratio, maximum_mean_milliseconds : float or None
        Over what that file says.
    prevent : str
        Whether a continuous run meets dangers that are foretold: by levers, by advice, or not at all.
    prevent_terminate : bool
        Whether a session of others may be ended that is idle in a transaction and keeps others waiting.
    prevent_vacuum : bool
        Whether a table with many dead rows may be vacuumed.
    prevent_role : tuple of str
        Roles of applications whose new sessions may be given time limits for a while, named one by one by the owner.
    memory_limit_bytes : int or None
        What the server may use, where we cannot see it.
    maximum_recovery_seconds : float
        How long the server may take to come back after a crash: bounds the WAL sizes.
    allow_knob : tuple of str
        Knobs that lose durability and may be searched all the same, named one by one by the owner.
    allow_restart : bool
        Whether the server may be restarted to try what takes effect at its start only.
    restart_command : str or None
        What restarts a server of the user's; run without a shell.
    workload : str
        What `tune` tunes for: a name, or a folder of scripts.
    clients : int or None
        Users of that workload; as many as it usually has where None.
    query_timeout_seconds : float
        How long a statement of a script of the user's may take.
    study : str or None
        The storage of Optuna's, as a URL, in which several servers that are tuned for the same workload share what
        they learn; None where each has its own.
    output : Path or None
        Where `tune` writes its files; the log folder where None.
    levels : tuple of str
        What `benchmark` measures.
    blocks : int
        Of each arm at each level.
    block_seconds : float
        What counts of each, at least.
    configuration : Path or None
        The optimised configuration of `benchmark`, a file that `tune` wrote; what was promoted where None.
    tune_minutes : float
        How long `benchmark` tunes first, where nothing has been promoted on the embedded server.
    skip_ablation : bool
        Whether `benchmark` leaves out the parts of what is optimised, one by one.
    retention_days : int or None
        How long windows are kept; None leaves it as it is, 30 days at first.
    seed : int
    """

    model_config = SettingsConfigDict(env_prefix="GENESIS_", env_ignore_empty=True, extra="ignore", frozen=True)

    dsn: str | None = None
    repository: str | None = None
    pg_bin: Path | None = None
    duration_hours: Hours = 1.0
    simulate: bool = False
    scale: Scale | None = None
    level: LevelName = "HIGH"
    objective: Objective = "mean"
    continuous: bool = False
    trials: Trials | None = None
    action: Action = "auto"
    window: Windows = ""
    objective_limit_milliseconds: Positive | None = None
    window_seconds: Positive = 10.0
    criteria: Path | None = None
    minimum_success_ratio: Ratio | None = None
    maximum_mean_milliseconds: Positive | None = None
    prevent: Prevention = "act"
    prevent_terminate: bool = False
    prevent_vacuum: bool = False
    prevent_role: Names = ()
    memory_limit_bytes: Bytes | None = None
    maximum_recovery_seconds: Positive = 300.0
    allow_knob: Names = ()
    allow_restart: bool = False
    restart_command: str | None = None
    workload: str = "genesis"
    clients: Clients | None = None
    query_timeout_seconds: Timeout = 60.0
    study: str | None = None
    output: Path | None = None
    levels: Levels = ("BASIC", "MEDIUM", "HIGH", "EXTREME")
    blocks: Blocks = 5
    block_seconds: BlockSeconds = 20.0
    configuration: Path | None = None
    tune_minutes: Minutes = 10.0
    skip_ablation: bool = False
    retention_days: Days | None = None
    seed: Seed = 1

    @property
    def table_scale(self) -> float:
        """Size of the tables of our own load: 1, about 100 MB, where nothing was chosen."""
        return 1.0 if self.scale is None else self.scale

    @property
    def duration_seconds(self) -> float:
        """The chosen duration."""
        return self.duration_hours * 3600.0

    @property
    def change_windows(self) -> ChangeWindows:
        """When the server may be changed: by the time zone of this machine, where none is named."""
        return parse_windows(self.window, _local_zone)

    @property
    def watching_seconds(self) -> float:
        """How long a continuous run goes on: for ever, unless a duration was chosen."""
        return self.duration_seconds if "duration_hours" in self.model_fields_set else math.inf

    @property
    def objective_limit_seconds(self) -> float:
        """The limit of the objective; infinite where none was chosen."""
        return math.inf if self.objective_limit_milliseconds is None else self.objective_limit_milliseconds / 1000


def load_settings(chosen: Mapping[str, object]) -> Settings:
    """Put `chosen` (None: not chosen) over the environment and the defaults.

    Raises
    ------
    UsageError
        Naming the setting, the value seen and what is allowed.
    """
    try:
        return Settings(**{name: value for name, value in chosen.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name, given = str(first["loc"][0]), first["input"]
        shown = "; ".join(map(str, given)) if isinstance(given, list) else given
        option, variable = _OPTIONS.get(name, f"--{name.replace('_', '-')}"), f"GENESIS_{name.upper()}"
        by_option = chosen.get(name) is not None
        raise UsageError(
            f"{option if by_option else variable} is {shown!r}: {_allowed(first['msg'])}.",
            f"Give another {option}." if by_option else f"Set another {variable} in the environment, or unset it.",
        ) from None


def _allowed(message: str) -> str:
    """Put the validator's words into ours."""
    words = message.removeprefix("Value error, ").replace("Input should be", "must be").split(", unable to")[0]
    return words.rstrip(".")
