"""``optimize``: try one change at a time on a server that serves, and keep what is proven better."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_postgres_optimization.errors import PrivilegeMissing, TargetError, UsageError
from ml_postgres_optimization.interfaces.commands.online.advice import advise, restart_advice_text, restart_tables
from ml_postgres_optimization.interfaces.commands.online.elsewhere import is_left_to_others, told_elsewhere
from ml_postgres_optimization.interfaces.commands.online.listening import Listener
from ml_postgres_optimization.interfaces.commands.online.proposing import propose
from ml_postgres_optimization.interfaces.preventing.opening import preventer_of, require_roles
from ml_postgres_optimization.interfaces.reporter import Result
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.settings import Settings
from ml_postgres_optimization.interfaces.trial_view import (
    changed_table,
    ledger_json,
    measured_table,
    slower_tables,
    trials_table,
)
from ml_postgres_optimization.interfaces.workbench.bench import Workbench, open_workbench, own_load
from ml_postgres_optimization.interfaces.workbench.ground import Ground
from ml_postgres_optimization.interfaces.workbench.learned import load_forest
from ml_postgres_optimization.interfaces.workbench.observing import Observer
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.models.knob_forest import KnobForest
from ml_postgres_optimization.safety.consent import LEAVE_SECONDS, Answer
from ml_postgres_optimization.trials import Measure, TrialPlan
from ml_postgres_optimization.tuning.controller import Controller
from ml_postgres_optimization.tuning.laboratory import open_study
from ml_postgres_optimization.tuning.ledger import Budget, Ledger
from ml_postgres_optimization.tuning.progress import Subscriber
from ml_postgres_optimization.tuning.proposing.drafting import Draft, rule_drafts
from ml_postgres_optimization.tuning.watching import Chronicle, ContinuousController, Pace

# How many blocks the time is cut into, the shortest and the longest. What makes pairs differ on a busy disk are
# stalls, and they come as often in a long block as in several short ones: of 30 pairs of 7.7 s the log-ratios spread
# by 0.9, of 14 pairs of 1.7 s by 0.4. Two runs of ours are a hint, no proof, that many short blocks tell more. Of
# sessions that are not ours a block must be long enough that most of their queries come in each.
_OUR_BLOCKS = (200, 1.5, 5.0)
_THEIR_BLOCKS = (70, 1.5, 10.0)
# A quarter of an hour at most for one trial of the longest blocks of ours.
_MOST_PAIRS = 60
_CAMPAIGN_SECONDS = 3600.0
_REST_SHARE = 1 / 4


def optimize(session: Session, *, dry_run: bool = False) -> Result:
    """Try one change at a time, and keep what is proven better: for the session's duration, or continuously.

    Returns
    -------
    Result
        The ledger: what was in force, every trial, what is in force now. Where nothing of the server is ours to
        change and no load is ours either, advice for whoever may, with the exit code of a missing privilege.

    Raises
    ------
    GenesisError
        Of the kind that fits. The proven configuration is in force then, or will be at the next start.
    UsageError
        If a limit is given that nobody would act on.
    """
    settings = session.settings
    _check(settings)
    only_advice = dry_run or settings.action == "advise"
    if is_left_to_others(session.target.capabilities) and (only_advice or not session.may_load):
        return told_elsewhere(session, exit_code=0 if only_advice else PrivilegeMissing.exit_code)
    if dry_run:
        return advise(session)
    if settings.action == "advise":
        return propose(session)
    require_roles(session)
    consent = session.consent()
    seconds = _campaign_seconds(settings.watching_seconds) if settings.continuous else settings.duration_seconds
    require_long_windows(session, seconds)
    observer = Observer(session, keeps_rows=not (settings.continuous and math.isinf(settings.watching_seconds)))
    with session.sole_optimizer() as journal, observer.saving():
        offer = own_load(session) if session.may_load else None
        with open_workbench(session, journal, observer, offer, consent=consent) as workbench:
            if settings.continuous:
                whole, ledgers = optimize_continuously(session, workbench, settings.watching_seconds)
            else:
                whole = optimize_on(session, workbench, settings.duration_seconds)
                ledgers = (whole,)
    return _reported(workbench, whole, ledgers, observer.write_csv())


def _check(settings: Settings) -> None:
    """Refuse what would have no effect.

    Raises
    ------
    UsageError
    """
    if settings.objective_limit_milliseconds is not None and not settings.continuous:
        raise UsageError(
            f"A limit of {settings.objective_limit_milliseconds:g} ms is acted on by a continuous run only.",
            "Add --continuous, or leave --objective-limit-milliseconds away.",
        )
    if settings.trials is not None and settings.continuous:
        raise UsageError(
            "--trials counts what one campaign may hold, and a continuous run begins one whenever the load changes.",
            "Leave one of the two away; --duration ends a continuous run.",
        )
    permissions = {
        "--prevent-terminate": settings.prevent_terminate,
        "--prevent-vacuum": settings.prevent_vacuum,
        "--prevent-role": settings.prevent_role,
    }
    for option, is_given in permissions.items():
        if is_given and (not settings.continuous or settings.prevent != "act"):
            raise UsageError(
                f"{option} is acted on by a continuous run that prevents only.",
                f"Add --continuous, with --prevent act, or leave {option} away.",
            )
    if settings.action == "advise" and settings.continuous:
        raise UsageError(
            "--action advise tells what it sees once, and --continuous goes on.",
            "Choose --action approve: then a continuous run changes nothing without your word.",
        )


def require_long_windows(session: Session, seconds: float) -> None:
    """Refuse windows for changes in which no trial of a campaign of so many seconds could ever end.

    Raises
    ------
    UsageError
    """
    windows, plan = session.settings.change_windows, plan_for(session, seconds, is_ours=session.may_load)
    longest_seconds = windows.longest_seconds(session.clock.now()) - LEAVE_SECONDS
    needed_seconds = plan.seconds_for(plan.thresholds.min_pairs)
    if longest_seconds < needed_seconds:
        raise UsageError(
            f"The windows for changes ({windows}) leave {max(0.0, longest_seconds):.0f} s at a time, and a trial "
            f"takes {needed_seconds:.0f} s at least.",
            "Choose a longer --window.",
        )


def _reported(workbench: Workbench, whole: Ledger, ledgers: Sequence[Ledger], csv: Path | None) -> Result:
    """Show all trials together, and what was measured in each campaign that kept something."""
    catalogue = workbench.ground.catalogue
    document = ledger_json(whole) | {"advice": dict(workbench.ground.advice().restart_advice), "csv": str(csv or "")}
    if len(ledgers) > 1:
        document["campaigns"] = [ledger_json(ledger) for ledger in ledgers]
    compared = [ledger for ledger in ledgers if ledger.comparison is not None] or [whole]
    tables = [*map(measured_table, compared), changed_table(whole, catalogue), trials_table(whole, catalogue)]
    tables += slower_tables(whole)
    return Result(document, [*tables, *restart_tables(workbench.ground)], [f"Windows as CSV: {csv}"] if csv else [])


def optimize_on(session: Session, workbench: Workbench, seconds: float) -> Ledger:
    """Run the controller for `seconds`, telling the user and the repository what happens."""
    initial = _require_ground(session, workbench)
    plan = plan_for(session, seconds, is_ours=workbench.load is not None)
    listener = Listener(session, workbench.observer)
    controller = _open_controller(session, workbench, plan, [listener])("", initial)
    return controller.run(initial, _drafts(workbench, initial), Budget(seconds, trials=session.settings.trials))


def optimize_continuously(session: Session, workbench: Workbench, seconds: float) -> tuple[Ledger, Sequence[Ledger]]:
    """Go on for `seconds`, or until stopped; return all trials in one ledger, and the ledger of each campaign.

    Ctrl-C is how a run without an end is ended; what was on trial is put back then, as always.
    """
    initial = _require_ground(session, workbench)
    settings, chronicle = session.settings, Chronicle(initial)
    campaign_seconds = _campaign_seconds(seconds)
    plan = plan_for(session, campaign_seconds, is_ours=workbench.load is not None)
    subscribers: list[Subscriber] = [chronicle, Listener(session, workbench.observer)]
    controller = ContinuousController(
        workbench.laboratory,
        _open_controller(session, workbench, plan, subscribers),
        lambda incumbent: _drafts(workbench, incumbent),
        plan,
        chronicle,
        pace=_pace(settings, campaign_seconds),
        limit_seconds=settings.objective_limit_seconds,
        forecast=workbench.observer.next_mean,
        approved=lambda incumbent: _approved(session, incumbent),
        advice=restart_advice_text(workbench.ground),
        preventer=preventer_of(session, workbench),
        subscribers=subscribers,
    )
    try:
        controller.run(seconds)
    except KeyboardInterrupt as stopped:
        # a note says that something could not be put back: no good end
        if math.isfinite(seconds) or getattr(stopped, "__notes__", None):
            raise
        session.reporter.say("Stopped: what is proven stays in force.")
    return chronicle.whole, chronicle.ledgers


def _require_ground(session: Session, workbench: Workbench) -> Configuration:
    """Return what is in force, where there is something to tune and to compare."""
    require_something_to_tune(session, workbench.ground)
    if workbench.load is None:
        require_something_to_compare(session)
    return workbench.ground.initial


def _drafts(workbench: Workbench, incumbent: Configuration) -> Sequence[Draft]:
    ground = workbench.ground
    return (
        *_approved(ground.session, incumbent),
        *rule_drafts(ground.advised, incumbent, apart=ground.catalogue.sessions_own if workbench.load else ()),
    )


def _campaign_seconds(seconds: float) -> float:
    """Return how long the first campaign of a continuous run of so many seconds may take."""
    return min(_CAMPAIGN_SECONDS, seconds / 2)


def _pace(settings: Settings, campaign_seconds: float) -> Pace:
    return Pace(
        settings.window_seconds, campaign_seconds=campaign_seconds, rest_seconds=campaign_seconds * _REST_SHARE
    )


def _approved(session: Session, incumbent: Configuration) -> tuple[Draft, ...]:
    """Return what the owner has approved, and nobody has tried yet: the change that was shown, and nothing else.

    Where it does not lead to the configuration that was approved any more, since something else has changed, the
    word is void: it is asked for anew.
    """
    drafts: list[Draft] = []
    for asked in session.approvals.all(Answer.APPROVED) if session.settings.action == "approve" else ():
        shown = {name: new for name, (_, new) in asked.changes.items() if new is not None}
        leads_to = incumbent.replaced(shown) if shown.keys() <= incumbent.keys() else None
        if leads_to is None or leads_to.id != asked.id:
            session.approvals.close(asked.id)
        if leads_to not in (None, incumbent):
            drafts.append(Draft.of(shown, "approved", f"{asked.reason} (approved by {asked.answered_by})"))
    return tuple(drafts)


def _open_controller(
    session: Session, workbench: Workbench, plan: TrialPlan, subscribers: Sequence[Subscriber]
) -> Callable[[str, Configuration], Controller]:
    """Return who opens a controller with the study of a load; that of the first one has no name."""
    learned = load_forest(session, KnobForest)
    workload = f"level-{session.settings.level}" if workbench.offer else "own"

    def opened(load: str, incumbent: Configuration) -> Controller:
        study = open_study(
            workbench.laboratory,
            incumbent,
            folder=session.home.studies_of(session.server),
            workload=f"{workload}-{load}" if load else workload,
            seed=session.settings.seed,
            elsewhere=session.home.studies_of_others(session.server),
        )
        model = learned.model if learned else None
        return Controller(workbench.laboratory, study, plan, model=model, subscribers=subscribers)

    return opened


def require_something_to_tune(session: Session, ground: Ground) -> None:
    """Say which settings our role may not tune, and why.

    Raises
    ------
    PrivilegeMissing
        If nothing is left.
    """
    _tell_of_own_settings(session, ground)
    refused = ground.refused
    if not refused:
        return
    first = next(iter(refused.values()))
    if not ground.catalogue.tunable:
        raise PrivilegeMissing(f"Nothing can be tuned on {session.connection.display}: {first.what}", first.next_step)
    session.reporter.say(
        f"{len(refused)} settings of the server cannot be tuned: {first.what} genesis-pg doctor says what mends it."
    )


def _tell_of_own_settings(session: Session, ground: Ground) -> None:
    """Say whom a setting of the server does not reach, though it reaches others."""
    own = session.target.capabilities.own_settings
    apart = [f"{name} ({', '.join(sorted(own[name]))})" for name in ground.catalogue.tunable if name in own]
    if apart:
        told = "Some have a value of their own by ALTER ROLE or ALTER DATABASE, which no trial changes"
        session.reporter.say(f"{told}: {'; '.join(apart)}.")


def require_something_to_compare(session: Session) -> None:
    """Refuse to start where what is to be compared of sessions that are not ours cannot be seen.

    Raises
    ------
    TargetError
    UsageError
        If a percentile is wanted, of which `pg_stat_statements` knows nothing.
    """
    if (objective := Measure(session.settings.objective)) is not Measure.MEAN:
        raise UsageError(
            f"--objective is {objective}, and of sessions that are not ours only the mean can be seen.",
            "Choose --objective mean, or let load of ours run there: --simulate.",
        )
    seen = session.target.snapshot()
    if not seen.statements and (reason := seen.unseen.get("statements")):
        raise TargetError(
            f"No response time can be seen on {session.connection.display}: {reason}.",
            "Mend that (genesis-pg doctor says how), or let load of ours run there: --simulate.",
        )


def plan_for(session: Session, seconds: float, *, is_ours: bool) -> TrialPlan:
    """Choose the length of a block so that several trials fit into the time; `is_ours` says whose load it is."""
    blocks, shortest, longest = _OUR_BLOCKS if is_ours else _THEIR_BLOCKS
    block_seconds = min(longest, max(shortest, seconds / blocks))
    return TrialPlan(block_seconds=block_seconds, max_pairs=_MOST_PAIRS, measure=Measure(session.settings.objective))
