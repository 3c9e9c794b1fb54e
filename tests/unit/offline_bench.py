"""A simulated server that may be restarted, with everything around it, on a clock of its own."""

import random
from dataclasses import replace

from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.safety.guard import Guard
from ml_postgres_optimization.safety.journal import Journal
from ml_postgres_optimization.target.simulated import SimulatedTarget
from ml_postgres_optimization.telemetry import MemoryStore, Recorder, VirtualClock
from ml_postgres_optimization.trials import TrialPlan
from ml_postgres_optimization.tuning import Laboratory, open_study
from ml_postgres_optimization.workload import LoadCounters


class OfflineBench:
    """Also the load: eight clients that can be paused."""

    def __init__(self, folder, *, seed=1, noise=None):
        self.clock = VirtualClock()
        self.target = SimulatedTarget(self.clock, seed=seed, noise=noise, concurrency=8, rate_per_second=100.0)
        self.settings = self.target.settings(load_catalogue().settings_needed)
        confronted = load_catalogue().confront(self.settings, 15, self.target.machine)
        self.catalogue = replace(confronted.without({"client.concurrency": "part of the workload"}), may_restart=True)
        self.journal = Journal(folder)
        self.initial = self.catalogue.configuration_of(self.settings)
        guard = Guard(
            self.target,
            catalogue=self.catalogue,
            machine=self.target.machine,
            journal=self.journal,
            capabilities=self.target.capabilities,
            connections=8,
            active=8,
        )
        self.store = MemoryStore()
        subscribers = [self.store.add, self.on_window]
        self.laboratory = Laboratory(
            guard=guard,
            recorder=Recorder(self.target, self.clock, samples=self.target.samples, subscribers=subscribers),
            clock=self.clock,
            rng=random.Random(seed),
            load=self,
            labels={"run": "test"},
        )
        self.plan = TrialPlan(block_seconds=5.0, warm_up_seconds=5.0)
        self.seed = seed
        self.events = []
        self.on_window_do = None
        self.is_paused = False

    def __enter__(self):
        self.journal.__enter__()
        return self

    def __exit__(self, *failure):
        self.journal.__exit__(*failure)

    def only(self, *names):
        """Search these knobs only."""
        self.initial = type(self.initial)({name: self.initial[name] for name in names})

    def set_connections(self, connections):
        raise AssertionError("how many there are is part of the workload")

    def can_divide(self, settings):
        return False

    def divide(self, arms):
        raise AssertionError("it said that it cannot")

    def replan(self):
        pass

    def pause(self):
        self.is_paused = True

    def resume(self):
        self.is_paused = False

    @property
    def counters(self):
        return LoadCounters()

    def on_window(self, window):
        assert not self.is_paused
        if self.on_window_do:
            self.on_window_do(window)

    def in_force(self):
        settings = self.target.settings(self.initial)
        return type(self.initial)({name: setting.value for name, setting in settings.items()})

    def study(self, *, elsewhere=()):
        return open_study(
            self.laboratory, self.initial, folder=None, workload="test", seed=self.seed, elsewhere=elsewhere
        )

    def truth(self, configuration):
        return self.target.latency_seconds(configuration, 8)
