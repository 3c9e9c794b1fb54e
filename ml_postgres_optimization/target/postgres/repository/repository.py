"""Keep and give back windows, configurations, trials and predictions in schema genesis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import date, datetime
from typing import Any

from psycopg import Connection, Error, errors
from psycopg.rows import TupleRow, dict_row
from psycopg.types.json import Jsonb

from ml_postgres_optimization.errors import SchemaMissing, TargetError, UsageError
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.target.postgres.connection import translated
from ml_postgres_optimization.target.postgres.connection.settings import on_one_line
from ml_postgres_optimization.target.postgres.queries import read_query
from ml_postgres_optimization.target.postgres.repository.encoding import (
    floats,
    in_utc,
    numbers,
    slower_parts,
    slower_parts_of,
    window_of,
    window_parameters,
)
from ml_postgres_optimization.target.postgres.repository.forests import ForestRecord, forest_parameters
from ml_postgres_optimization.target.postgres.repository.history import (
    Known,
    Period,
    SettingChange,
)
from ml_postgres_optimization.target.postgres.repository.records import (
    JournalEntry,
    PredictionRecord,
    PredictionScore,
    PreventionRecord,
    TrialRecord,
)
from ml_postgres_optimization.target.postgres.schema import require_schema, settings_of
from ml_postgres_optimization.target.seen import ConfigurationSeen
from ml_postgres_optimization.telemetry import Window

# A window takes some 300 kB.
_WINDOWS_AT_ONCE = 50
_SCHEMA_IS_GONE = (
    errors.UndefinedTable,
    errors.UndefinedColumn,
    errors.UndefinedFunction,
    errors.UndefinedObject,
    errors.InvalidSchemaName,
)


class Repository:
    """Schema genesis of one database.

    Parameters
    ----------
    connection : psycopg.Connection
        A session of `connect`; it stays the caller's to close.
    server : str, optional
        System identifier of the server whose windows and forests are kept; several may share a repository. Windows
        are then marked as its own, and only its own are given back; those of which nobody said whose they are count
        as its own where no other server is known here. Without one, all are given back.

    Raises
    ------
    SchemaMissing
        By every method: if the schema is not there, or is older than this program.
    ServerUnreachable, PrivilegeMissing, ReadOnlyServer, TargetError
        By every method: what kept it from its work. What it was to keep is not kept then.

    Notes
    -----
    Each method is one transaction of its own, committed when it returns. Adding the same window, configuration or
    trial again changes nothing, so that a caller whose answer was lost may repeat it. Not thread safe.
    """

    def __init__(self, connection: Connection[TupleRow], *, server: str | None = None) -> None:
        self._connection = connection
        self._server = server
        self._settings = settings_of(connection)
        self._maintained: date | None = None

    @property
    def is_lost(self) -> bool:
        """Whether its connection was seen to be lost: another repository must be opened then."""
        return self._connection.closed

    def require(self) -> None:
        """Make sure that the schema is there, in the version of this program."""
        require_schema(self._connection)

    def add(self, window: Window) -> None:
        """Keep `window`, with its histograms."""
        self._maintain(in_utc(window.ended_at).date())
        attributed = window if window.server is not None else replace(window, server=self._server)
        self._execute("add_window", window_parameters(attributed), "record a window")

    def windows(
        self, *, since: datetime | None = None, run: str | None = None, last: int | None = None
    ) -> list[Window]:
        """Return the kept windows, oldest first.

        Parameters
        ----------
        since : datetime, optional
            Leave out what had ended by then.
        run : str, optional
            Only those of the run.
        last : int, optional
            Only the newest, this many at most.
        """
        parameters = {"since": since, "run": run, "last": last, "server": self._server}
        return [window_of(row) for row in self._rows("windows", parameters, "read windows")]

    def stream(self, *, of_every_server: bool = False) -> Iterator[Window]:
        """Yield the kept windows, oldest first, with no more than a few of them in memory.

        The session is in a transaction until the last one: nothing else may be asked of this repository meanwhile.
        """
        server = None if of_every_server else self._server
        parameters = {"since": None, "run": None, "last": None, "server": server}
        with (
            self._working("read windows"),
            self._connection.cursor(name="genesis_windows", row_factory=dict_row) as cursor,
        ):
            cursor.itersize = _WINDOWS_AT_ONCE
            cursor.execute(read_query("repository/windows"), parameters)
            yield from map(window_of, cursor)

    def unattributed_total(self) -> int:
        """Return how many windows are left out since nobody said of which of several servers they are."""
        parameters = {"server": self._server}
        return int(self._rows("unattributed", parameters, "count windows")[0]["windows"])

    def add_configuration(self, configuration: Configuration, *, origin: str) -> None:
        """Make known what the identifier of `configuration` stands for; who met it first, remains its origin."""
        self._execute("add_configuration", _configuration_parameters(configuration, origin), "record a configuration")

    def configuration(self, configuration_id: str) -> Configuration:
        """Return the configuration of that identifier.

        Raises
        ------
        UsageError
            If it was never met.
        """
        for row in self._rows("configurations", {"id": configuration_id}, "read configurations"):
            return Configuration(row["values"])
        raise UsageError(
            f"No configuration {configuration_id!r} is known in {self._settings.display}.",
            "See the known ones: genesis-pg history, or SELECT * FROM genesis.configurations.",
        )

    def configurations(self) -> dict[str, Configuration]:
        """Return every configuration that was ever met, by its identifier, the oldest first."""
        rows = self._rows("configurations", {"id": None}, "read configurations")
        return {row["id"]: Configuration(row["values"]) for row in rows}

    def add_trial(self, trial: TrialRecord) -> None:
        """Keep a trial, its pairs, and its two configurations; one with the same identifier is replaced."""
        parameters = {
            **{name: getattr(trial, name) for name in trial.__slots__},
            "baseline_id": trial.baseline.id,
            "candidate_id": trial.candidate.id,
            "figures": numbers(trial.figures),
            "slower_parts": slower_parts(trial.slower_parts),
            "baselines": [pair[0] for pair in trial.pairs],
            "candidates": [pair[1] for pair in trial.pairs],
            "candidate_first": [pair[2] for pair in trial.pairs],
        }
        del parameters["baseline"], parameters["candidate"], parameters["pairs"]
        with self._working("record a trial"):
            for configuration, origin in ((trial.baseline, "baseline"), (trial.candidate, trial.origin)):
                self._connection.execute(
                    read_query("repository/add_configuration"), _configuration_parameters(configuration, origin)
                )
            self._connection.execute(read_query("repository/add_trial"), parameters)
            self._connection.execute(read_query("repository/add_trial_pairs"), parameters)

    def trials(self) -> list[TrialRecord]:
        """Return every trial, oldest first."""
        return [_trial_of(row) for row in self._rows("trials", {}, "read trials")]

    def add_prevention(self, prevention: PreventionRecord) -> None:
        """Keep an occasion of prevention and its configurations; of one that is known, what has come of it."""
        before, after = prevention.before, prevention.after
        parameters = {name: getattr(prevention, name) for name in prevention.__slots__}
        del parameters["before"], parameters["after"]
        parameters |= {"before_id": before.id, "after_id": after and after.id}
        with self._working("record a prevention"):
            for configuration in filter(None, (before, after)):
                self._connection.execute(
                    read_query("repository/add_configuration"), _configuration_parameters(configuration, "prevention")
                )
            self._connection.execute(read_query("repository/add_prevention"), parameters)

    def preventions(self) -> list[PreventionRecord]:
        """Return every occasion of prevention, oldest first."""
        return [_prevention_of(row) for row in self._rows("preventions", {}, "read preventions")]

    def add_prediction(self, prediction: PredictionRecord) -> None:
        """Keep a prediction, to be scored when its window is there."""
        self._maintain(in_utc(prediction.made_at).date())
        self._execute("add_prediction", asdict(prediction), "record a prediction")

    def add_forests(self, forests: Iterable[ForestRecord]) -> None:
        """Keep trained forests, all or none, each in place of the one of its kind and server."""
        with self._working("store the forests"):
            for forest in forests:
                self._connection.execute(read_query("repository/add_forest"), forest_parameters(forest, self._server))

    def score_predictions(self) -> int:
        """Write what happened beside each prediction whose window is there by now, and return how many."""
        return int(self._rows("score_predictions", {}, "score predictions")[0]["scored"])

    def prediction_scores(self) -> list[PredictionScore]:
        """Return how the predictions of each model came true."""
        return [PredictionScore(**row) for row in self._rows("prediction_scores", {}, "read predictions")]

    def add_statement_texts(self, texts: Mapping[int, str]) -> None:
        """Keep the texts of normalised queries by their queryid; one that is known already remains as it is."""
        parameters = {"queryids": list(texts), "statements": list(texts.values())}
        self._execute("add_statement_texts", parameters, "record the texts of statements")

    def statement_texts(self) -> dict[int, str]:
        """Return the known texts by queryid."""
        rows = self._rows("known_statements", {}, "read the texts of statements")
        return {row["queryid"]: row["statement"] for row in rows}

    def mirror_journal(self, server: str, entries: Sequence[JournalEntry]) -> None:
        """Mirror records of a server's journal on disk; those that are there already are not added again."""
        parameters = {
            "server": server,
            "ats": [entry.at for entry in entries],
            "entries": [Jsonb(dict(entry.entry)) for entry in entries],
        }
        self._execute("mirror_journal", parameters, "mirror the journal")

    def journal(self, server: str) -> list[JournalEntry]:
        """Return what was mirrored for a server, in the order in which it was."""
        rows = self._rows("journal", {"server": server}, "read the journal's mirror")
        return [JournalEntry(in_utc(row["at"]), row["entry"]) for row in rows]

    def record_configuration(self, server: str, seen: ConfigurationSeen) -> int:
        """Keep what differs from what was known to be in force, and return how many settings that are.

        Who brought it is read from what was mirrored of the journal: mirror that first.
        """
        settings = [{"name": each.name, "value": each.value, "unit": each.unit} for each in seen.settings]
        parameters = {"server": server, "seen": Jsonb(settings), "seen_at": seen.at, "loaded_at": seen.loaded_at}
        return int(self._rows("record_configuration", parameters, "record the configuration")[0]["changed"])

    def known(self, server: str) -> Known | None:
        """Return how far the history of a server's configuration reaches; None where nobody has looked at it."""
        for row in self._rows("known_servers", {"server": server}, "read the configuration's history"):
            return Known(**_in_utc(row))
        return None

    def periods(self, server: str, at: datetime) -> list[Period]:
        """Return every value of a setting that stood at a moment or came after it, the oldest first.

        What a run left on trial, and nobody promoted, is left out unless it is in force still.
        """
        rows = self._rows("configuration_periods", {"server": server, "at": at}, "read the configuration's history")
        return [Period(**_in_utc(row)) for row in rows]

    def configuration_changes(self, server: str, *, last: int) -> list[SettingChange]:
        """Return the last changes of a server's settings, by us or by others, the newest first."""
        parameters = {"server": server, "last": last}
        rows = self._rows("configuration_changes", parameters, "read the configuration's history")
        return [SettingChange(**_in_utc(row)) for row in rows]

    def _maintain(self, day: date) -> None:
        """Have partitions made and dropped, once for every day that comes; again while somebody is in the way."""
        if day != self._maintained and self._rows("maintain", {}, "maintain its partitions")[0]["all_done"]:
            self._maintained = day

    def _execute(self, name: str, parameters: Mapping[str, Any], doing: str) -> None:
        with self._working(doing):
            self._connection.execute(read_query(f"repository/{name}"), parameters)

    def _rows(self, name: str, parameters: Mapping[str, Any], doing: str) -> list[dict[str, Any]]:
        with self._working(doing), self._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(read_query(f"repository/{name}"), parameters).fetchall()

    @contextmanager
    def _working(self, doing: str) -> Iterator[None]:
        try:
            with translated(self._settings, doing), self._connection.transaction():
                yield
        except _SCHEMA_IS_GONE as error:
            raise SchemaMissing(
                f"Schema genesis of {self._settings.display} is not there, or not as this program made it: {error}",
                "Run: genesis-pg setup",
            ) from error
        except Error as error:
            # a deadlock with somebody's DDL, a trigger of the owner's, a value that does not fit
            said = on_one_line(error.diag.message_primary or str(error))
            raise TargetError(
                f"The server at {self._settings.display} did not let us {doing}: {said} (SQLSTATE {error.sqlstate})",
                error.diag.message_hint or "See what was added to schema genesis: a trigger, a rule, a constraint.",
            ) from error


def _configuration_parameters(configuration: Configuration, origin: str) -> dict[str, object]:
    return {"id": configuration.id, "values": Jsonb(dict(configuration)), "origin": origin}


def _in_utc(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: in_utc(value) if isinstance(value, datetime) else value for name, value in row.items()}


def _prevention_of(row: Mapping[str, Any]) -> PreventionRecord:
    plain = {name: row[name] for name in PreventionRecord.__slots__ if name in row}
    after = None if row["after_values"] is None else Configuration(row["after_values"])
    return PreventionRecord(**_in_utc(plain), before=Configuration(row["before_values"]), after=after)


def _trial_of(row: Mapping[str, Any]) -> TrialRecord:
    pairs: Iterable[tuple[float, float, bool]] = zip(
        row["baselines"], row["candidates"], row["candidate_first"], strict=True
    )
    plain = {name: row[name] for name in TrialRecord.__slots__ if name in row}
    return TrialRecord(
        **{
            **plain,
            "started_at": in_utc(row["started_at"]),
            "ended_at": in_utc(row["ended_at"]),
            "baseline": Configuration(row["baseline_values"]),
            "candidate": Configuration(row["candidate_values"]),
            "figures": floats(row["figures"]),
            "slower_parts": slower_parts_of(row["slower_parts"]),
            "pairs": tuple(pairs),
        }
    )
