"""Measure all blocks of a comparison, in order, and keep each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Protocol

from ml_postgres_optimization.comparison.arm import Arm
from ml_postgres_optimization.comparison.ledger import Ledger
from ml_postgres_optimization.comparison.measuring.figures import BlockFigures
from ml_postgres_optimization.comparison.plan import Cell, ComparisonPlan
from ml_postgres_optimization.comparison.terms import Terms


class Stage(Protocol):
    """Where blocks are measured: a server, its tables, and who may change its configuration."""

    def in_force(self, is_configured: bool) -> AbstractContextManager[None]:
        """Return the context in which the proven configuration is in force, or base's.

        Whatever ends it, what was in force before is put back.
        """

    def measure(self, cell: Cell, arm: Arm, terms: Terms) -> BlockFigures:
        """Make the tables anew, and measure one block."""


OnBlock = Callable[[Cell, Arm, float], None]


def run_comparison(
    plan: ComparisonPlan, stage: Stage, ledger: Ledger, terms: Terms, *, on_block: OnBlock | None = None
) -> None:
    """Measure every cell that the ledger does not have.

    Parameters
    ----------
    plan : ComparisonPlan
    stage : Stage
    ledger : Ledger
    terms : Terms
    on_block : callable, optional
        Called before each block with its cell, its arm, and the share of all blocks that is done.

    Raises
    ------
    GenesisError
        What the stage raises. Blocks that were measured until then are kept.
    """
    done = 0
    with ExitStack() as force:
        is_configured: bool | None = None
        for cell in plan.cells():
            if ledger.has(cell):
                done += len(cell.arms)
                continue
            for arm in cell.arms:
                if on_block is not None:
                    on_block(cell, arm, done / plan.block_count)
                if arm.is_configured != is_configured:
                    force.close()
                    force.enter_context(stage.in_force(arm.is_configured))
                    is_configured = arm.is_configured
                figures = stage.measure(cell, arm, terms)
                ledger.add((cell.round, cell.level.name, arm.name), figures)
                done += 1
