"""Meet one danger at a time: act, hold out or advise; watch what happens; and put back what was done."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Self

from ml_postgres_optimization.errors import (
    ChangeRefused,
    GenesisError,
    JournalError,
    NotNow,
    PrivilegeMissing,
    ServerUnreachable,
    TargetError,
)
from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Change, Configuration
from ml_postgres_optimization.models.features.summary import summarise
from ml_postgres_optimization.retry.classification import ErrorClass
from ml_postgres_optimization.safety.guarded_change import GuardedChange
from ml_postgres_optimization.safety.undo import listed
from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.tuning.laboratory import Laboratory
from ml_postgres_optimization.tuning.preventing.danger import Alarm, Brake, Costs, Danger, Patience
from ml_postgres_optimization.tuning.preventing.levers import Offer, Sight
from ml_postgres_optimization.tuning.preventing.means import Means
from ml_postgres_optimization.tuning.preventing.occasion import Choice, Demand, HoldOut, Occasion, Subscriber

_NOT_PUT_BACK = "it could not be put back yet, and the next start does it"


class Preventer:
    """Watch for dangers between trials, and meet one at a time.

    Parameters
    ----------
    laboratory : Laboratory
        Whose guard lets a change into force and puts it back.
    means : Means, optional
        Without any it does nothing.
    rng : random.Random, optional
        The lot that holds out one occasion of five.
    costs : Costs
    patience : Patience
    subscribers : sequence of callables
        Each receives every occasion when it begins and when it ends, with a sentence for the user.

    Notes
    -----
    Not thread safe. As a context it puts back what it has done, however it is left; of a run that dies, the journal
    knows, and those who stand by for every trial do it (`safety.guard`). While an occasion is open nobody else may
    change the server: the one who asks `see` holds no trial then. What is compared is the same for both kinds: the
    first windows of an occasion, `Patience.horizon`; one that is held out is over then.
    """

    def __init__(
        self,
        laboratory: Laboratory,
        means: Means | None = None,
        *,
        rng: random.Random | None = None,
        costs: Costs | None = None,
        patience: Patience | None = None,
        subscribers: Sequence[Subscriber] = (),
    ) -> None:
        self._laboratory = laboratory
        self._means = means or Means()
        self._threshold = (costs or Costs()).threshold
        self._patience = patience or Patience()
        self._subscribers = tuple(subscribers)
        self._hold_out = HoldOut(rng or random.Random(0))
        self._alarm = Alarm(self._threshold, self._patience)
        self._advised: set[ErrorClass] = set()
        self._advised_at: dict[ErrorClass, datetime] = {}
        self._demand = Demand(self._patience.horizon)
        self._open: Occasion | None = None
        self._held = ExitStack()
        self._guarded: GuardedChange | None = None
        self._foreign: Mapping[str, str] = {}
        self._seen_windows = self._rested_windows = 0
        self._seen_seconds = 0.0
        self._brake = Brake(self._patience.horizon)

    @property
    def is_open(self) -> bool:
        """Whether an occasion is under way, acted on or held out."""
        return self._open is not None

    def standing(self, incumbent: Configuration) -> Configuration:
        """Return what is in force over `incumbent`; where somebody else has changed it, the occasion ends first.

        Raises
        ------
        TargetError, JournalError
            If the server or the journal fails.
        """
        occasion = self._open
        if occasion is None or self._guarded is None or occasion.after is None:
            return incumbent
        if self._laboratory.in_force(occasion.after) == occasion.after:
            return occasion.after
        self.end("somebody else has changed what is in force")
        return incumbent

    def see(self, window: Window, incumbent: Configuration) -> bool:
        """Take the window that has just ended; return whether it belongs to an occasion, or one begins now.

        Raises
        ------
        TargetError, JournalError
            If the server or the journal fails; what was done is put back, or will be at the next start.
        """
        foresight = self._means.foresee(window)
        dangers = [*(foresight.dangers() if foresight else ()), *self._means.symptoms(window)]
        risen = self._alarm.see(dangers)
        self._advised = {name for name in self._advised if not self._alarm.is_past(name)}
        if self._open is not None:
            self._go_on(self._open, window)
            return True
        self._demand.see(window, is_ours=self._laboratory.load is not None)
        self._brake.see_before(summarise(window).log_mean)
        self._rested_windows -= 1
        if not risen or self._rested_windows > 0:
            return False
        guard = self._laboratory.guard
        sight = Sight(window, incumbent, guard.catalogue, guard.machine, self._threshold, foresight)
        for danger in risen:
            self._meet(danger, sight)
            if self.is_open:
                return True
        return False

    def end(self, why: str, error: BaseException | None = None) -> None:
        """Put back what was done, and close the occasion that is open, if one is; `error` is what ends the run."""
        occasion, self._open = self._open, None
        if occasion is None:
            return
        # as long as it took, so that levers are pulled for half of the time at most
        self._rested_windows = self._seen_windows if occasion.choice is Choice.ACTED else 0
        self._alarm.forget()
        try:
            self._let_go(error)
        except GenesisError as failure:
            self._tell(replace(occasion, ending=_NOT_PUT_BACK), f"{occasion.deed}: {_NOT_PUT_BACK} ({failure.what})")
            raise
        if self._is_unfinished(occasion):
            self._tell(replace(occasion, ending=_NOT_PUT_BACK), f"{occasion.deed}: {_NOT_PUT_BACK}")
            return
        ended = replace(occasion, ended_at=self._laboratory.clock.now(), ending=occasion.ending or why)
        left = f"; left as somebody else set it: {listed(self._foreign)}" if self._foreign else ""
        self._tell(ended, f"{ended.choice}: {ended.deed}; {_came_of(ended)}; it is over, for {ended.ending}{left}")

    def forget(self) -> None:
        """Begin to count anew: between two windows something else went on, so that they do not follow each other."""
        self._alarm.forget()

    def _is_unfinished(self, occasion: Occasion) -> bool:
        trial = self._laboratory.guard.journal.state.trials.get(occasion.id)
        return trial is not None and not trial.is_finished

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end("the run ended" if error is None else "the run was stopped", error)

    def _meet(self, danger: Danger, sight: Sight) -> None:
        """Do what the first lever can that the guard lets pass; advise where none can or may."""
        offers = [offer for lever in self._means.levers if (offer := lever.offer(danger, sight))]
        acting = next((offer for offer in offers if self._can_act(offer, danger, sight)), None)
        hindrance = self._hindrance(danger, sight)
        if acting is None or hindrance:
            self._advise(danger, offers, sight, hindrance)
            return
        choice = self._hold_out.draw(danger.error_class)
        after = sight.in_force.replaced(acting.values) if acting.values else None
        occasion = self._occasion(danger, acting, sight, choice=choice, after=after)
        self._open, self._seen_windows, self._seen_seconds = occasion, 0, 0.0
        self._foreign = {}
        self._brake.begin()
        held_out = ", held out to see what happens without it" if choice is Choice.HELD_OUT else ""
        self._tell(occasion, f"{danger}: {acting.deed}{held_out}")
        if choice is Choice.ACTED:
            self._act(occasion, acting)

    def _hindrance(self, danger: Danger, sight: Sight) -> str | None:
        """Return why nothing may be done now; None where it may."""
        consent = self._laboratory.guard.consent
        if self._means.only_advises:
            return "as its owner wants it"
        if danger.error_class in self._means.harmed():
            return "what was done before brought more errors than doing nothing: genesis-pg history"
        if consent is None:
            return None
        if consent.approvals is not None:
            return "every change needs a word, for which a danger leaves no time"
        found = consent.hindrance(needed_seconds=self._patience.horizon * sight.window.duration_seconds)
        return found.reason if found else None

    def _can_act(self, offer: Offer, danger: Danger, sight: Sight) -> bool:
        """Tell whether it may be acted on; where a session is the cause, nothing but its end takes it away."""
        if offer.is_advice or (danger.blocker is not None and offer.blocker is None):
            return False
        if offer.blocker is not None or offer.table is not None:
            return self._means.server is not None
        return self._laboratory.allows(sight.in_force.replaced(offer.values), sight.in_force)

    def _advise(self, danger: Danger, offers: Sequence[Offer], sight: Sight, hindrance: str | None) -> None:
        """Say once what the owner could do, until the danger is past, and of a class at most once an hour."""
        now, last = self._laboratory.clock.now(), self._advised_at.get(danger.error_class)
        is_recent = last is not None and (now - last).total_seconds() < self._patience.advice_seconds
        if danger.error_class in self._advised or is_recent or not offers:
            return
        self._advised.add(danger.error_class)
        self._advised_at[danger.error_class] = now
        deed = "; or ".join(offer.deed for offer in offers)
        offer = replace(offers[0], deed=deed)
        occasion = self._occasion(danger, offer, sight, choice=Choice.ADVISED)
        why = f" ({hindrance})" if hindrance else ""
        self._tell(replace(occasion, ended_at=now, ending=hindrance or ""), f"{danger}: advised{why}: {deed}")

    def _occasion(
        self, danger: Danger, offer: Offer, sight: Sight, *, choice: Choice, after: Configuration | None = None
    ) -> Occasion:
        return Occasion(
            id=f"{self._laboratory.new_trial_id()}-prevention",
            began_at=self._laboratory.clock.now(),
            danger=danger,
            threshold=self._threshold,
            choice=choice,
            lever=offer.lever,
            deed=offer.deed,
            before=sight.in_force,
            after=after,
        )

    def _act(self, occasion: Occasion, acting: Offer) -> None:
        """Pull the lever; one that is refused now was drawn all the same, and stays among those acted on."""
        try:
            if occasion.after is None:
                self._do_once(occasion, acting)
            else:
                self._put_in_force(Change(occasion.before, occasion.after), occasion.id)
        except (ChangeRefused, NotNow, PrivilegeMissing) as refusal:
            self._let_go()
            self._open = replace(occasion, ending=refusal.what.rstrip("."))
        except JournalError as failure:
            if self._is_unfinished(occasion):
                raise
            self._advise_instead(occasion, failure)

    def _advise_instead(self, occasion: Occasion, failure: JournalError) -> None:
        """Leave it with the advice where the journal takes no intent: nothing was written, nor will be soon."""
        self._let_go()
        self._open, self._rested_windows = None, self._patience.longest
        ending, now = failure.what.rstrip("."), self._laboratory.clock.now()
        advised = replace(occasion, choice=Choice.ADVISED, after=None, ended_at=now, ending=ending)
        self._tell(advised, f"{occasion.danger}: advised ({ending}): {occasion.deed}")

    def _put_in_force(self, change: Change, occasion_id: str) -> None:
        laboratory = self._laboratory
        self._guarded = self._held.enter_context(laboratory.guard.trial(change, occasion_id))
        self._held.callback(self._forget_guarded)
        self._foreign = self._guarded.foreign_changes
        self._guarded.apply()
        if laboratory.load and CONCURRENCY in change.knobs:
            # on the sessions that are there: to close and open them costs the server most when it is in danger
            self._held.callback(laboratory.load.hold_below, None)
            laboratory.load.hold_below(int(change.after[CONCURRENCY]))

    def _forget_guarded(self) -> None:
        self._guarded = None

    def _do_once(self, occasion: Occasion, acting: Offer) -> None:
        """Do what cannot be put back; a vacuum that is under way when it is over can be broken off."""
        server, blocker, table = self._means.server, acting.blocker, acting.table
        if server is None:
            return
        if table is not None:
            self._held.callback(server.end_vacuum)
        try:
            is_done = self._laboratory.guard.do_for_good(
                lambda: (
                    (blocker is not None and server.end_blocker(blocker))
                    or (table is not None and server.begin_vacuum(table))
                )
            )
        except ServerUnreachable:
            raise
        except TargetError as refusal:
            self._open = replace(occasion, ending=refusal.what.rstrip("."))
            return
        if not is_done:
            why = "the session had gone on by itself" if blocker else "a table is being vacuumed already"
            self._open = replace(occasion, ending=why)

    def _go_on(self, occasion: Occasion, window: Window) -> None:
        self._seen_windows += 1
        self._seen_seconds += window.duration_seconds
        self._open = occasion = self._counted(occasion, window)
        if self._guarded is not None:
            occasion = self._keep(self._guarded, occasion, window)
        if self._seen_seconds >= self._patience.longest_seconds:
            self.end("it has lasted long enough")
        elif self._seen_windows < self._patience.horizon:
            return
        elif occasion.choice is Choice.HELD_OUT:
            # what comes later tells nothing more, and who is in danger should not wait for help any longer
            self.end("its horizon is over")
        elif occasion.ending or self._alarm.is_past(occasion.danger.error_class):
            self.end("the danger is past")
        elif self._seen_windows >= self._patience.longest:
            self.end("it has lasted long enough")

    def _keep(self, guarded: GuardedChange, occasion: Occasion, window: Window) -> Occasion:
        """See that it may stay so long, and makes nothing slower; else put it back, and look on."""
        ending = ""
        try:
            if occasion.after is not None and set(Change(occasion.before, occasion.after).knobs) - {CONCURRENCY}:
                self._laboratory.guard.require_protection()
            guarded.look(window.duration_seconds)
        except NotNow as refusal:
            ending = refusal.what.rstrip(".")
        if self._brake.see(summarise(window).log_mean):
            ending = ending or "it was slower"
        if ending:
            self._let_go()
            self._open = occasion = replace(occasion, ending=ending)
        return occasion

    def _counted(self, occasion: Occasion, window: Window) -> Occasion:
        """Count what counts in the horizon; a class that is not seen here makes the occasion tell nothing.

        A window in which nothing of our own load came to an end counts as one with an error, whatever was done.
        """
        if self._seen_windows > self._patience.horizon:
            return occasion
        is_ours = self._laboratory.load is not None
        is_stalled = is_ours and not window.operations_total
        errors = 1 if is_stalled else summarise(window).failures.get(occasion.danger.error_class)
        if errors is None:
            return occasion
        windows = occasion.windows + 1
        due, done = self._demand.of(window, is_ours=is_ours)
        # what one window leaves waiting the next one may do
        done_total = occasion.due - occasion.undone + done
        return replace(
            occasion,
            windows=windows,
            operations=occasion.operations + window.operations_total,
            errors=occasion.errors + errors,
            response_seconds=occasion.response_seconds + window.response.sum_seconds,
            due=occasion.due + due,
            undone=occasion.due + due - done_total,
            is_whole=windows == self._patience.horizon,
        )

    def _let_go(self, error: BaseException | None = None) -> None:
        """Put back what was done; raises, or notes on `error`, as `GuardedChange` does where it cannot be."""
        held, self._held = self._held, ExitStack()
        held.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)

    def _tell(self, occasion: Occasion, message: str) -> None:
        for subscriber in self._subscribers:
            subscriber(occasion, message)


def _came_of(occasion: Occasion) -> str:
    if not occasion.is_whole:
        return "what came of it was not seen to the end"
    undone = max(0.0, occasion.undone)
    return (
        f"{occasion.errors} of {occasion.operations:,} operations failed so in {occasion.windows} windows, and "
        f"{undone:,.0f} of {occasion.due:,.0f} were left undone"
    )
