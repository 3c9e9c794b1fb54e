"""``history`` and ``export``: what was recorded."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from ml_postgres_optimization.errors import StateError, UsageError
from ml_postgres_optimization.interfaces.lineage import Line, Proof, lines, proofs
from ml_postgres_optimization.interfaces.preventing.savings_view import prevention_json, prevention_tables
from ml_postgres_optimization.interfaces.reporter import Result, Table
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.trial_view import (
    PROOF,
    changes_text,
    effect_of,
    interval_text,
    percent_change,
)
from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.safety.journal import read_journal
from ml_postgres_optimization.target.postgres.repository import TrialRecord
from ml_postgres_optimization.telemetry.export import window_frame, write_csv, write_parquet
from ml_postgres_optimization.trials import Outcome


def history(session: Session, *, limit: int = 20) -> Result:
    """Show the trials, newest first, what each and all brought, the proofs of it, and what prevention saved.

    Notes
    -----
    A proof is a trial too, but promotes nothing: it measures afresh what promotions brought, and is told apart.
    """
    trials = session.repository().trials()
    stood = list(lines(trials))
    proven = proofs(trials)
    in_force = {trial.intent.trial_id for trial in read_journal(session.home.of_server(session.server)).confirmed}
    newest = list(zip(reversed(trials), reversed(stood), strict=True))[:limit]
    promoted = sum(trial.outcome == Outcome.PROMOTED and trial.origin != PROOF for trial in trials)
    preventions = session.repository().preventions()
    document = {
        "trials": [
            _trial_json(trial) | {"so_far": line.brought._asdict(), "in_force": trial.id in in_force}
            for trial, line in newest
        ],
        "total": len(trials),
        "promoted": promoted,
        "brought": _brought_json(stood[-1]) if stood else None,
        "proofs": [_proof_json(proof) for proof in proven],
        "prevention": prevention_json(preventions, limit=limit),
    }
    columns = ("trial", "outcome", "change", "response time", "so far", "pairs", "by")
    table = Table("Trials, newest first", columns, [_trial_row(*one) for one in newest], unbroken=2)
    counted = f"Trials: {len(trials)}; promoted: {promoted}; proofs: {len(proven)}."
    tables = [table, *_proofs_table(proven), *prevention_tables(preventions)]
    return Result(document, tables, [counted, *_brought_lines(stood, in_force)])


def _trial_row(trial: TrialRecord, line: Line) -> tuple[str, ...]:
    return (
        trial.id,
        trial.outcome,
        changes_text(trial.baseline, trial.candidate, load_catalogue()),
        interval_text(effect_of(trial)),
        percent_change(line.brought.ratio) if line.promoted else "–",
        str(len(trial.pairs)),
        trial.origin,
    )


def _trial_json(trial: TrialRecord) -> dict[str, object]:
    changes = trial.candidate.difference(trial.baseline)
    return {
        "id": trial.id,
        "started_at": trial.started_at.isoformat(),
        "outcome": trial.outcome,
        "because": trial.verdict_reason,
        "origin": trial.origin,
        "reason": trial.reason,
        "changes": {name: {"before": old, "after": new} for name, (old, new) in changes.items()},
        "ratio": trial.ratio,
        "ratio_low": trial.ratio_low,
        "ratio_high": trial.ratio_high,
        "design": trial.design,
        "pairs": len(trial.pairs),
        "slower_parts": [part._asdict() for part in trial.slower_parts],
    }


def _brought_json(line: Line) -> dict[str, object]:
    return {"promotions": [trial.id for trial in line.promoted], **line.brought._asdict()}


def _brought_lines(stood: Sequence[Line], in_force: Container[str]) -> Iterator[str]:
    """Say what the promotions that stand on each other bring in total, and what of it is not sure to be in force."""
    if not stood or not stood[-1].promoted:
        return
    line = stood[-1]
    first, many = line.promoted[0], len(line.promoted)
    yield (
        f"In total, since {first.started_at:%Y-%m-%d %H:%M} UTC: {interval_text(line.brought)} in response time, the "
        f"product of {many} {'promotion' if many == 1 else 'promotions'}. "
        "Each was chosen for its figures, which flatters them: only a proof is free of that."
    )
    if gone := [trial.id for trial in line.promoted if trial.id not in in_force]:
        yield (
            f"Not in force by the journal of this installation: {', '.join(gone)}; rolled back, or promoted from "
            "another installation."
        )


def _proof_json(proof: Proof) -> dict[str, object]:
    return {
        "trial": proof.trial.id,
        "promotions": [trial.id for trial in proof.promised.promoted] if proof.promised else None,
        "promised": proof.promised.brought._asdict() if proof.promised else None,
        "proven": proof.proven._asdict() if proof.proven else None,
        "initial_put_back": proof.trial.outcome == Outcome.PROMOTED,
    }


def _proofs_table(proven: Sequence[Proof]) -> list[Table]:
    rows = [
        (
            proof.trial.id,
            str(len(proof.promised.promoted)) if proof.promised else "–",
            interval_text(proof.promised.brought) if proof.promised else "–",
            interval_text(proof.proven) if proof.proven else "nothing was seen to run",
            "initial put back" if proof.trial.outcome == Outcome.PROMOTED else "kept",
        )
        for proof in reversed(proven)
    ]
    columns = ("trial", "promotions", "promised", "proven", "what was found then")
    title = "Proofs, newest first: what had been found over what it started from, measured afresh"
    return [Table(title, columns, rows, unbroken=1)] if rows else []


_WRITERS = {"csv": write_csv, "parquet": write_parquet}


def check_format(file_format: str) -> None:
    """Refuse a format that `export` does not know.

    Raises
    ------
    UsageError
    """
    if file_format not in _WRITERS:
        raise UsageError(f"The format {file_format!r} is not known.", "Choose csv or parquet.")


def export(session: Session, *, directory: Path | None = None, file_format: str = "csv") -> Result:
    """Write all recorded windows to one file.

    Raises
    ------
    UsageError
        If the format is not known.
    StateError
        If the file cannot be written.
    """
    check_format(file_format)
    frame = window_frame(session.repository().stream(of_every_server=True))
    path = (directory or session.home.logs) / f"windows.{file_format}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _WRITERS[file_format](frame, path)
    except OSError as error:
        raise StateError(
            f"{path} cannot be written: {error.strerror or error}.", "Choose another --directory, or make room."
        ) from error
    document = {"windows": len(frame), "path": str(path)}
    return Result(document, (), [f"{len(frame)} windows written to {path}"])
