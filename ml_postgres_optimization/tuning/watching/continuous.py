"""Watch, forecast, decide, for as long as the server runs; at most one trial at a time, and none without a reason."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.models.observation import Prediction
from ml_postgres_optimization.safety.consent import Hindrance
from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.trials import Measure, TrialPlan
from ml_postgres_optimization.tuning.controller import Controller
from ml_postgres_optimization.tuning.laboratory import Laboratory
from ml_postgres_optimization.tuning.ledger import Budget, Ledger
from ml_postgres_optimization.tuning.preventing import Preventer
from ml_postgres_optimization.tuning.progress import Progress, Stage, Subscriber
from ml_postgres_optimization.tuning.proposing.drafting import Draft
from ml_postgres_optimization.tuning.watching.change import ChangeDetector, Departure, LastingChange
from ml_postgres_optimization.tuning.watching.chronicle import Chronicle
from ml_postgres_optimization.tuning.watching.era import Era, Pace, expected_seconds, refused_in, tried_in
from ml_postgres_optimization.tuning.watching.forecast import TREND_WINDOWS, LimitWatch, Outlook, Threat, trend
from ml_postgres_optimization.tuning.watching.memory import KnownLoad, LoadMemory
from ml_postgres_optimization.tuning.watching.reading import Reading

OpenController = Callable[[str, Configuration], Controller]
DraftsFor = Callable[[Configuration], Sequence[Draft]]
NextWindow = Callable[[Window], Prediction | None]

# A campaign compares its beginning with what was seen before it, in so many windows.
_WINDOWS_BEFORE = 3
# Half of a budget is one trial's fair share: twice what it takes at least.
_TRIALS_IN_A_BUDGET = 4


def _none_approved(_incumbent: Configuration) -> Sequence[Draft]:
    """Stand in for an owner who is never asked."""
    return ()


class ContinuousController:
    """Keep one server optimised: a campaign first, then quiet until something is worth a trial.

    Parameters
    ----------
    laboratory : Laboratory
    controllers : callable
        From a load's name and the configuration in force to a controller with a study of its own, which tells
        `subscribers` and the chronicle; the first load's name is empty.
    drafts : callable
        From the configuration in force to what the rules would try first.
    plan : TrialPlan
        Of every trial; its measure is what is watched.
    chronicle : Chronicle
        Knows what is in force.
    pace : Pace
    limit_seconds : float
        The objective: a response that must not be exceeded; infinite where there is none.
    forecast : callable, optional
        From a window to the mean of the next one, by a model that beats the naive forecast; None where none does.
    approved : callable
        From the configuration in force to what the owner has approved meanwhile: tried first.
    advice : str
        What only the owner can do, for when no proposal is left.
    preventer : Preventer, optional
        Meets dangers between trials; no trial is held, and nothing is learned of what is usual, meanwhile.
    subscribers : sequence of callables
        Each receives every `Progress`.

    Notes
    -----
    Not thread safe. An exception, Ctrl-C included, leaves the incumbent in force, as with `Controller`.
    """

    def __init__(
        self,
        laboratory: Laboratory,
        controllers: OpenController,
        drafts: DraftsFor,
        plan: TrialPlan,
        chronicle: Chronicle,
        *,
        pace: Pace | None = None,
        limit_seconds: float = math.inf,
        forecast: NextWindow | None = None,
        approved: DraftsFor = _none_approved,
        advice: str = "",
        preventer: Preventer | None = None,
        subscribers: Sequence[Subscriber] = (),
    ) -> None:
        self._laboratory = laboratory
        self._controllers = controllers
        self._drafts = drafts
        self._plan = plan
        self._chronicle = chronicle
        self._pace = pace or Pace()
        self._limit_seconds = limit_seconds
        self._forecast = forecast if plan.measure is Measure.MEAN else None
        self._approved = approved
        self._advice = advice
        self._preventer = preventer or Preventer(laboratory)
        self._subscribers = tuple(subscribers)
        self._recent: deque[Reading] = deque(maxlen=TREND_WINDOWS)
        self._memory = LoadMemory()
        self._limit = LimitWatch(limit_seconds)
        self._era: Era | None = None
        self._loads = 0
        self._cut_short: str | None = None
        self._is_idle = self._is_preventing = False
        self._held_by: Hindrance | None = None
        self._begins_anew = True
        self._end_seconds = self._rested_seconds = self._next_trial_seconds = -math.inf

    @property
    def _least_seconds(self) -> float:
        """What a trial takes at least, by what is known of how long the response takes to settle."""
        plan = self._laboratory.settling.applied_to(self._plan)
        return plan.seconds_for(plan.thresholds.min_pairs)

    def run(self, seconds: float = math.inf) -> Ledger:
        """Go on for `seconds`, for ever by default.

        Returns
        -------
        Ledger
            Of all trials; its incumbent is in force.

        Raises
        ------
        TargetError, JournalError
            If the server or the journal fails; the incumbent is in force, or will be at the next start.
        """
        self._end_seconds = self._now() + seconds
        with self._preventer:
            while self._left_seconds() >= self._pace.window_seconds:
                window = self._watch()
                reading = Reading.of(window, self._plan.measure)
                if not self._preventer.see(window, self._chronicle.incumbent) and not self._rests(reading):
                    self._recent.append(reading)
                    self._decide(reading, window)
        return self._chronicle.whole

    def _watch(self) -> Window:
        in_force = self._preventer.standing(self._chronicle.incumbent)
        if in_force == self._chronicle.incumbent and self._take_over():
            self._preventer.end("somebody else has changed what is in force")
            in_force = self._chronicle.incumbent
        if self._preventer.is_open != self._is_preventing:
            self._is_preventing = self._preventer.is_open
            self._settle()
        # windows that follow each other without a gap are what a forecast has learned from
        anew, self._begins_anew = self._begins_anew, False
        labels = {"state": self._state}
        pool = self._chronicle.incumbent
        return self._laboratory.watch(self._pace.window_seconds, in_force, anew=anew, labels=labels, pool=pool)

    def _take_over(self) -> bool:
        """Take what somebody else has put in force for what is in force; what is usual is learned anew under it."""
        known = self._chronicle.incumbent
        found = self._laboratory.in_force(known)
        if found == known:
            return False
        changed = ", ".join(found.difference(known))
        self._tell(Stage.OVERTAKEN, f"somebody else has changed {changed}: what is in force now counts", found=found)
        self._chronicle.go_on_from(found)
        if self._era is not None:
            self._era = Era(self._era.load, self._controllers(self._era.load, found), ())
        self._settle()
        return True

    @property
    def _state(self) -> str:
        if self._preventer.is_open:
            return "preventing"
        if self._is_idle:
            return "idle"
        return "quiet" if self._era is not None and self._era.detector is not None else "learning"

    def _rests(self, reading: Reading) -> bool:
        """Tell whether nothing runs, and the user when that begins."""
        if reading.is_idle and not self._is_idle:
            self._tell(Stage.QUIET, "nothing runs on this server that could be compared; waiting for load")
        self._is_idle = reading.is_idle
        return reading.is_idle

    def _decide(self, reading: Reading, window: Window) -> None:
        era, is_held = self._era, self._is_held()
        if era is None:
            if is_held:
                return
            self._tell(Stage.WATCHED, str(reading), window=window)
            if len(self._recent) >= _WINDOWS_BEFORE:
                self._campaign()
            return
        outlooks = self._outlooks(window)
        threat = self._limit.see(tuple(self._recent), outlooks)
        if not is_held and ((threat and self._meets(threat, era, window)) or self._follows(era)):
            return
        if era.detector is None:
            self._learn(era, reading)
        elif change := era.detector.see(reading) or era.missed:
            # one that lasts is seen again when it may be answered
            if not is_held:
                self._answer(change, era)
        else:
            ahead = "; ".join(map(str, outlooks))
            self._tell(Stage.STEADY, f"{reading}, as usual" + (f"; {ahead}" if ahead else ""), window=window)

    def _is_held(self) -> bool:
        """Tell whether the server's owner allows no trial now, and the user when that begins and ends."""
        consent = self._laboratory.guard.consent
        found = consent.hindrance() if consent else None
        if found != self._held_by:
            message = f"{found.reason}; {found.next_step}" if found else "changes are allowed again"
            self._tell(Stage.WAITING, message)
        self._held_by = found
        return found is not None

    def _follows(self, era: Era) -> bool:
        """Try what the owner has approved after its campaign was over."""
        incumbent = self._chronicle.incumbent
        drafts = [
            draft
            for draft in self._approved(incumbent)
            if incumbent.replaced(draft.values(incumbent)) not in era.tried
        ]
        if not drafts or self._now() < self._next_trial_seconds or self._left_seconds() < self._least_seconds:
            return False
        self._tell(Stage.WOKEN, "a proposal was approved: it is tried")
        self._try_one(era, drafts[:1])
        return True

    def _outlooks(self, window: Window) -> list[Outlook]:
        """Look as far ahead as a trial takes: one that begins later would come too late."""
        predicted = self._forecast(window) if self._forecast else None
        next_window = predicted and Outlook(predicted.value, self._pace.window_seconds, "latency forest")
        carried_on = trend(tuple(self._recent), self._least_seconds)
        return [outlook for outlook in (next_window, carried_on) if outlook]

    def _learn(self, era: Era, reading: Reading) -> None:
        """Learn what is usual, and whether the load is still what the campaign began with."""
        era.readings.append(reading)
        if len(era.readings) < self._pace.learning_windows:
            self._tell(Stage.STEADY, f"{reading}, learning what is usual")
            return
        era.detector = ChangeDetector(era.readings, era.expected_seconds, self._pace.changes)
        profile = era.detector.profile
        usual = f"{math.exp(profile.log_rate.center):,.0f}/s at {math.exp(profile.log_response.center) * 1000:.2f} ms"
        if 2 * sum(profile.fits(before) for before in era.before) < len(era.before):
            era.missed = LastingChange(Departure.MIX, f"the load became another one during the campaign: {usual} now")
        self._tell(Stage.QUIET, f"usual is {usual}; waiting for a change of it")

    def _answer(self, change: LastingChange, era: Era) -> None:
        """Try the configuration before, recall a load that is known, or begin a campaign; rest in between."""
        if change.departure is Departure.RESPONSE and era.previous is not None:
            if self._now() >= self._next_trial_seconds:
                self._try_previous(change, era, era.previous)
            return
        last = tuple(self._recent)[-self._pace.changes.load_windows :]
        known = self._memory.recognise(last) if change.departure is not Departure.RESPONSE else None
        if known is not None:
            self._recall(known, change)
        elif self._now() >= self._rested_seconds:
            self._campaign(change)
        elif not era.is_delayed:
            era.is_delayed = True
            self._tell(
                Stage.QUIET,
                f"{change.message}; the last campaign was a moment ago: the next one in "
                f"{self._rested_seconds - self._now():.0f} s, if it stays so",
            )

    def _campaign(self, change: LastingChange | None = None) -> None:
        self._leave()
        incumbent = self._chronicle.incumbent
        name = self._name_of_load()
        if change is not None:
            self._tell(Stage.WOKEN, f"{change.message}: a new campaign")
        controller = self._controllers(name, incumbent)
        before = tuple(self._recent)[-_WINDOWS_BEFORE:]
        seconds = min(self._pace.campaign_seconds, self._left_seconds() / 2)
        self._chronicle.begin()
        ledger = controller.run(incumbent, self._drafts(incumbent), Budget(seconds, self._pace.patience))
        self._preventer.forget()
        self._era = None
        if self._take_over() or controller.was_held:
            self._cut_short = name if controller.was_held else None
            return  # another one begins from there
        self._rested_seconds = self._now() + self._pace.rest_seconds
        self._begin_era(Era(name, controller, before, tried=tried_in(ledger)), ledger)

    def _name_of_load(self) -> str:
        """Return a new name, or that of a campaign which its owner did not let go on: its study is gone on with."""
        name, self._cut_short = self._cut_short, None
        if name is None:
            name = "" if not self._loads else f"load-{self._laboratory.clock.now():%Y%m%dT%H%M%S}"
            self._loads += 1
        return name

    def _leave(self) -> None:
        """Remember the load that is left, if it was learned."""
        era = self._era
        if era is not None and era.detector is not None:
            self._memory.keep(KnownLoad(era.load, era.detector.profile, self._chronicle.incumbent))

    def _recall(self, known: KnownLoad, change: LastingChange) -> None:
        """Take up a load that was tuned before: what was in force then comes first, in a trial as everything."""
        incumbent = self._chronicle.incumbent
        is_other = known.incumbent != incumbent
        if is_other and self._now() < self._next_trial_seconds:
            return
        self._leave()
        told = f"{change.message}; a load that is known is back"
        follow = "what was in force under it is tried" if is_other else "nothing has to be searched again"
        self._tell(Stage.WOKEN, f"{told}: {follow}")
        self._era = era = Era(known.name, self._controllers(known.name, incumbent), ())
        if is_other:
            draft = Draft.of(known.incumbent, "memory", "what was in force when this load was here last")
            self._try_one(era, [draft])
        else:
            self._limit = LimitWatch(self._limit_seconds)

    def _try_previous(self, change: LastingChange, era: Era, previous: Configuration) -> None:
        """Prove the last promotion again: what was better may not be so any more, and need not be to blame."""
        self._tell(Stage.WOKEN, f"{change.message}: the configuration before is tried once more")
        era.previous = None
        reason = "the configuration before, as what replaced it has become slower"
        self._try_one(era, [Draft.of(previous, "re-proof", reason)])

    def _meets(self, threat: Threat, era: Era, window: Window) -> bool:
        """Begin a trial against `threat`, unless the last one was a moment ago or no proposal is left."""
        if self._now() < self._next_trial_seconds or self._left_seconds() < self._least_seconds:
            return False
        incumbent = self._chronicle.incumbent
        drafts = [
            draft
            for draft in self._drafts(incumbent)
            if incumbent.replaced(draft.values(incumbent)) not in {*era.tried, incumbent}
        ]
        if not drafts and era.failures >= self._pace.attempts:
            if not era.is_advised:
                era.is_advised = True
                self._tell(Stage.ADVISED, f"{threat.message}, and no proposal is left. {self._advice}".rstrip())
            return False
        self._tell(Stage.FORECAST, f"{threat.message}; the most promising proposal is tried")
        self._try_one(era, drafts, window)
        return True

    def _try_one(self, era: Era, drafts: Sequence[Draft], window: Window | None = None) -> None:
        """Hold one trial outside of a campaign, and then rest for as long as it took."""
        began_seconds, incumbent = self._now(), self._chronicle.incumbent
        seconds = min(_TRIALS_IN_A_BUDGET * self._least_seconds, self._left_seconds())
        self._chronicle.begin()
        ledger = era.controller.try_one(incumbent, drafts, Budget(seconds, prove=False), window=window)
        self._preventer.forget()
        # so that at most half of the time is spent on trials
        now = self._now()
        self._next_trial_seconds = now + max(now - began_seconds, self._pace.window_seconds)
        if era.controller.was_held:
            self._settle()
            return  # neither tried nor failed
        era.tried |= tried_in(ledger) | refused_in(ledger, drafts, incumbent)
        if ledger.promoted:
            self._begin_era(Era(era.load, era.controller, (), tried=era.tried), ledger)
            return
        era.failures += 1
        self._settle()

    def _begin_era(self, era: Era, ledger: Ledger) -> None:
        if ledger.incumbent != ledger.initial:
            # on sessions that are not ours a trial weights queries in its own way: no figure for a whole window
            seconds = expected_seconds(ledger, self._plan.measure) if self._laboratory.load else math.inf
            era = replace(era, previous=ledger.initial, expected_seconds=seconds)
        self._era = era
        self._settle()

    def _settle(self) -> None:
        """Begin the next window afresh: what a trial's last moments left belongs to nobody."""
        self._begins_anew = True
        self._recent.clear()
        self._limit = LimitWatch(self._limit_seconds)

    def _now(self) -> float:
        return self._laboratory.clock.monotonic_seconds()

    def _left_seconds(self) -> float:
        return self._end_seconds - self._now()

    def _tell(
        self, stage: Stage, message: str, *, window: Window | None = None, found: Configuration | None = None
    ) -> None:
        now, left_seconds = self._laboratory.clock.now(), self._left_seconds()
        progress = Progress(stage, now, message, left_seconds, window=window, configuration=found)
        for subscriber in self._subscribers:
            subscriber(progress)
