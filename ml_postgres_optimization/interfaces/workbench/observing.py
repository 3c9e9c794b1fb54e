"""What happens to each window of a run: stored, exported, logged, forecast."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from ml_postgres_optimization.errors import GenesisError, ServerUnreachable, TargetError
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.workbench.configuration_watch import ConfigurationWatch, unmirrored
from ml_postgres_optimization.interfaces.workbench.forecasting import Forecaster
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.models.observation import Prediction
from ml_postgres_optimization.target.postgres.repository import PredictionScore, Repository
from ml_postgres_optimization.telemetry import StatementKey, Window
from ml_postgres_optimization.telemetry.export import WindowRows, write_csv
from ml_postgres_optimization.tuning.preventing import Foresight

_MOST_UNSTORED = 200
# A full disk or a missing grant is mended within minutes, or not at all.
_MOST_REFUSALS = 30


class Observer:
    """Keep every window of a run: in the repository, in memory for the CSV, and in the log.

    Parameters
    ----------
    session : Session
    keeps_rows : bool
        Whether windows are kept in memory for the CSV; a run without an end has no room for that, and `export`
        reads them from the repository.

    Notes
    -----
    A repository that is away for a while loses nothing: what could not be stored waits for the next window, 200
    records at most (60 MB), the oldest of which give way. What the repository refuses for good gives way too, so that
    it does not hold up the rest. What could not be stored stands in the CSV, and the user is told.
    """

    def __init__(self, session: Session, *, keeps_rows: bool = True) -> None:
        self._session = session
        self._repository: Repository | None = session.repository()
        self._unstored: deque[Callable[[Repository], None]] = deque()
        self._refusals = 0
        self._given_up_total = 0
        self._configurations: dict[str, Configuration] = {}
        self._forecaster = Forecaster(session)
        self._texts_known: set[StatementKey] = set()
        self._keeps_rows = keeps_rows
        self._rows = WindowRows()
        self._watch = ConfigurationWatch(session)
        self.look()

    def __call__(self, window: Window) -> None:
        """Take one finished window."""
        if self._keeps_rows:
            self._rows.append(replace(window, server=self._session.server))
        self._session.log.info(
            "window",
            labels=dict(window.labels),
            configuration=window.configuration_id,
            operations=window.operations_total,
            mean_seconds=window.response.mean_seconds if window.operations_total else None,
            failed=window.failed_total,
            skipped=window.skipped_total,
        )
        self.keep(lambda repository: repository.add(window))
        self.look()
        self._learn_texts(window)
        if window.configuration_id in self._configurations:
            for prediction in self._forecaster.predictions(window, self._configurations[window.configuration_id]):
                self.keep(partial(Repository.add_prediction, prediction=prediction))

    def next_mean(self, window: Window) -> Prediction | None:
        """Return the mean response that is forecast after `window`; None where no model beats the naive forecast."""
        return self._forecaster.next_mean(window)

    def foresight(self, window: Window) -> Foresight | None:
        """Return what the error forest says after `window`; None where none was trained."""
        return self._forecaster.foresight(window)

    def learn_anew(self) -> None:
        """Forecast by the models that are stored now."""
        self._forecaster = Forecaster(self._session)

    def know(self, configuration: Configuration, origin: str) -> None:
        """Have the repository know what a configuration's id stands for."""
        self._configurations[configuration.id] = configuration
        self.keep(lambda repository: repository.add_configuration(configuration, origin=origin))

    def keep(self, store: Callable[[Repository], None]) -> None:
        """Store something now, or as soon as the repository is back."""
        self._unstored.append(store)
        if len(self._unstored) > _MOST_UNSTORED:
            self._give_up()
        self._flush()

    def mirror_journal(self) -> None:
        """Show in the repository what the journal on disk says, as far as it is not there yet."""
        if entries := unmirrored(self._session.journal):
            self.keep(lambda repository: repository.mirror_journal(self._session.server, entries))

    def look(self) -> None:
        """See whether something else is in force by now, by us or by others, and have the repository keep it."""
        self.mirror_journal()
        if store := self._watch.look():
            self.keep(store)

    def prediction_scores(self) -> list[PredictionScore]:
        """Score the predictions whose window has come, and return how good they were."""
        scores: list[PredictionScore] = []

        def score(repository: Repository) -> None:
            repository.score_predictions()
            scores[:] = repository.prediction_scores()

        self.keep(score)
        self._flush()  # a lost connection is noticed only by using it; now there is another
        return scores

    def _learn_texts(self, window: Window) -> None:
        """Store the texts of statements that are seen for the first time."""
        new = set(window.statements) - self._texts_known
        if not new:
            return
        try:
            texts = {key[0]: text for key, text in self._session.target.statement_texts(new).items()}
        except TargetError as error:  # they are asked for again with the next window
            self._session.log.warning("texts", what=error.what)
            return
        self._texts_known |= new
        self.keep(lambda repository: repository.add_statement_texts(texts))

    def write_csv(self) -> Path | None:
        """Write all windows to the log folder and return the file; None where there were none, or no room."""
        self.look()
        self._flush()
        if lost := len(self._unstored) + self._given_up_total:
            self._session.reporter.say(
                f"{lost} records could not be stored in the repository; the windows are in the CSV."
            )
        if not len(self._rows):
            return None
        name = f"windows-{self._session.run}.csv"
        return self._session.write_result(name, lambda path: write_csv(self._rows.frame(), path))

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Write the windows to the log folder when the work inside fails, and note on the error where they are."""
        try:
            yield
        except GenesisError as error:
            if csv := self.write_csv():
                error.add_note(f"What was measured until then is in {csv}")
            raise

    def _flush(self) -> None:
        try:
            self._repository = self._repository or self._session.repository()
            while self._unstored:
                self._unstored[0](self._repository)
                self._unstored.popleft()
                self._refusals = 0
        except TargetError as error:
            self._repository = None
            self._session.log.warning("repository", what=error.what, waiting=len(self._unstored))
            self._refusals += not isinstance(error, ServerUnreachable)
            if self._unstored and self._refusals >= _MOST_REFUSALS:
                self._give_up()

    def _give_up(self) -> None:
        """Let go of the record that has waited longest."""
        self._unstored.popleft()
        self._given_up_total += 1
        self._refusals = 0
