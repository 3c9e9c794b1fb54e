"""What an offline search came to, on one page: the finding first, the evidence below."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ml_postgres_optimization.interfaces.report import Page, Section, render_page
from ml_postgres_optimization.interfaces.report.changes import changes_picture
from ml_postgres_optimization.interfaces.report.effects import effects_picture
from ml_postgres_optimization.interfaces.report.evidence import evidence, evidence_picture
from ml_postgres_optimization.interfaces.reporter import Table
from ml_postgres_optimization.interfaces.trial_view import trial_record
from ml_postgres_optimization.knobs.catalogue import Catalogue
from ml_postgres_optimization.tuning.offline import Tuned


def tuned_page(
    tuned: Tuned,
    catalogue: Catalogue,
    *,
    heading: str,
    story: Sequence[str],
    tables: tuple[Table, Table],
    made_at: datetime,
) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    tuned : Tuned
    catalogue : Catalogue
    heading : str
        Which run this was.
    story : sequence of str
        The finding, its first sentence by itself.
    tables : tuple of Table
        The trials, and what was found.
    made_at : datetime
    """
    trials, found = tables
    sections = [
        Section("What was found", tables=[found]),
        *_proof(tuned, catalogue),
        Section(
            "The search",
            [
                "Each candidate was compared with the best one until then, by a block or a few. What was "
                "preferred was gone on with, and is not proven by that; only the proof is."
            ],
            tables=[trials],
        ),
    ]
    return render_page(Page(heading, story[0], story[1:], sections, made_at))


def _proof(tuned: Tuned, catalogue: Catalogue) -> list[Section]:
    """Return the pictures of the proof; nothing where there was none."""
    if tuned.proof is None:
        return []
    record = trial_record(tuned.proof)
    steps = list(evidence(record))
    pictures = [effects_picture(record), evidence_picture(record, steps), changes_picture(record, catalogue)]
    explained = "What was found against what was in force at the start, by a test that holds at every look."
    return [Section("The proof", [explained], pictures)]
