"""An arena whose response decays towards its steady state after every switch, on a clock of its own."""

import random

import numpy as np

from ml_postgres_optimization.knobs.configuration import Change, Configuration
from ml_postgres_optimization.telemetry import Histogram, OperationWindow, VirtualClock, Window
from ml_postgres_optimization.trials import Proposal, Settling, Switchback, TrialPlan, run_trial

BASELINE = Configuration({"work_mem": 4096})
CANDIDATE = BASELINE.replaced({"work_mem": 8192})
STEP_SECONDS = 0.5


class SettlingArena:
    """Latency is ``steady * (1 + excess * exp(-t / decay))``, t seconds after the last switch or restart.

    `noise` is the standard deviation of the log-latency of half a second; `correlation` that between two in a row.
    """

    def __init__(self, *, excess=1.0, decay_seconds=2.0, ratio=1.0, noise=0.03, correlation=0.0, seed=0):
        self.clock = VirtualClock()
        self.rng = np.random.default_rng(seed)
        self.excess = excess if isinstance(excess, dict) else {BASELINE: excess, CANDIDATE: excess}
        self.decay_seconds = decay_seconds
        self.steady = {BASELINE: 0.010, CANDIDATE: 0.010 * ratio}
        self.noise, self.correlation, self.level = noise, correlation, 0.0
        self.in_force, self.switched_seconds = BASELINE, -1e9
        self.settled_seconds = []
        self.traced = []

    def switch(self, configuration):
        if configuration != self.in_force:
            self.renew(configuration)

    def renew(self, configuration):
        self.in_force, self.switched_seconds = configuration, self.clock.monotonic_seconds()

    def settle(self, seconds):
        self.settled_seconds.append((self.in_force, seconds))
        self.clock.sleep(seconds)

    def measure(self, seconds, *, labels):
        return self._window(self._steps(round(seconds / STEP_SECONDS)), labels)

    def trace(self, seconds, steps, *, labels):
        self.traced.append(labels["arm"])
        each = round(seconds / STEP_SECONDS / steps)
        return [self._window(self._steps(each), labels) for _ in range(steps)]

    def _steps(self, count):
        for _ in range(count):
            since_seconds = self.clock.monotonic_seconds() - self.switched_seconds
            fresh = self.rng.standard_normal() * np.sqrt(1 - self.correlation**2)
            self.level = self.correlation * self.level + self.noise * fresh
            excess = self.excess[self.in_force] * np.exp(-since_seconds / self.decay_seconds)
            yield self.steady[self.in_force] * (1 + excess) * np.exp(self.level)
            self.clock.sleep(STEP_SECONDS)

    def _window(self, latencies, labels):
        started_at = self.clock.now()
        seconds = np.repeat([*latencies], 20)
        operations = {"read": OperationWindow(response := Histogram.of(seconds), response)}
        return Window(started_at, self.clock.now(), self.in_force.id, labels, operations=operations)


def held(arena, plan=None, *, settling=None, layout=Switchback, seed=1):
    """Hold a trial of `CANDIDATE`."""
    settling = Settling() if settling is None else settling
    return run_trial(
        layout(arena, plan or TrialPlan(), Change(BASELINE, CANDIDATE), {}, settling),
        Proposal(CANDIDATE, "user", "to see"),
        clock=arena.clock,
        rng=random.Random(seed),
        trial_id="t1",
    )


def in_turn_without_looking(arena, plan, change, labels, _settling):
    return Switchback(arena, plan, change, labels)
