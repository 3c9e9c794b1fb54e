"""Trials that can be believed: design, sequential test, verdict."""

from ml_postgres_optimization.trials.figures import figures_of, uneven, unsettled
from ml_postgres_optimization.trials.layout.arena import Load, ServerArena, drain
from ml_postgres_optimization.trials.layout.blocks import (
    Arena,
    Blocks,
    BlocksInTurn,
    Concurrent,
    DividedArena,
    RestartedArena,
    Restarting,
    Switchback,
)
from ml_postgres_optimization.trials.layout.design import NEVER, Deadline, Switch, TrialPlan
from ml_postgres_optimization.trials.layout.memory_watch import (
    MemoryRunsOut,
    MemoryWatch,
    ReadMemory,
    memory_unseen,
)
from ml_postgres_optimization.trials.layout.settling import Settling
from ml_postgres_optimization.trials.objective import Measure, mix_of, paired_objective, response_with_mix
from ml_postgres_optimization.trials.parts import Endings, Parts
from ml_postgres_optimization.trials.proposal import (
    Arm,
    Design,
    Interval,
    Outcome,
    Pair,
    PartEffect,
    Proposal,
    Trial,
    Verdict,
)
from ml_postgres_optimization.trials.sequential import PairedTest
from ml_postgres_optimization.trials.trial import OnPair, run_trial
from ml_postgres_optimization.trials.verdict import (
    NO_GUARDS,
    Breach,
    Decision,
    Guards,
    Health,
    Thresholds,
    breach,
    decide,
)

__all__ = [
    "NEVER",
    "NO_GUARDS",
    "Arena",
    "Arm",
    "Blocks",
    "BlocksInTurn",
    "Breach",
    "Concurrent",
    "Deadline",
    "Decision",
    "Design",
    "DividedArena",
    "Endings",
    "Guards",
    "Health",
    "Interval",
    "Load",
    "Measure",
    "MemoryRunsOut",
    "MemoryWatch",
    "OnPair",
    "Outcome",
    "Pair",
    "PairedTest",
    "PartEffect",
    "Parts",
    "Proposal",
    "ReadMemory",
    "RestartedArena",
    "Restarting",
    "ServerArena",
    "Settling",
    "Switch",
    "Switchback",
    "Thresholds",
    "Trial",
    "TrialPlan",
    "Verdict",
    "breach",
    "decide",
    "drain",
    "figures_of",
    "memory_unseen",
    "mix_of",
    "paired_objective",
    "response_with_mix",
    "run_trial",
    "uneven",
    "unsettled",
]
