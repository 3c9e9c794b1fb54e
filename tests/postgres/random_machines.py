"""Machines and configurations by lot: what the guard lets pass has to fit, and a server to start with it."""

import random
from collections import Counter
from dataclasses import dataclass, field, replace

from ml_postgres_optimization.errors import ChangeRefused, GenesisError
from ml_postgres_optimization.knobs.catalogue import Catalogue, load_catalogue
from ml_postgres_optimization.knobs.knob import Knob, KnobValue, Scope, Setting
from ml_postgres_optimization.knobs.machine import Machine
from ml_postgres_optimization.knobs.memory import allowed_bytes
from ml_postgres_optimization.knobs.rendering import same_value, written_text
from ml_postgres_optimization.safety.constraints import CONSTRAINING_SETTINGS, Circumstances, review
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings
from ml_postgres_optimization.target.postgres.server import PostgresTarget
from ml_postgres_optimization.target.restart import Rehearsal

MIB = 1 << 20
# Exponents of two, in base units: what may be in force somewhere.
IN_FORCE = {
    "max_connections": (4, 11),
    "shared_buffers": (7, 25),
    "work_mem": (6, 20),
    "maintenance_work_mem": (10, 22),
    "max_worker_processes": (2, 7),
    "max_parallel_workers": (0, 7),
    "temp_buffers": (7, 16),
}


@dataclass
class Chance:
    """Draw machines and configurations, and judge what the guard says of them.

    Parameters
    ----------
    settings : mapping of str to Setting
        Of a real server.
    circumstances : Circumstances
        What really is: server and machine.
    rehearsal : Rehearsal
        Of the server's programs.
    seen : Counter
        How often what happened.
    """

    settings: dict[str, Setting]
    really: Circumstances
    rehearsal: Rehearsal
    seen: Counter = field(default_factory=Counter)

    @classmethod
    def of(cls, dsn: str, rehearsal: Rehearsal) -> "Chance":
        """Look at a real server, and at the machine that we are on."""
        with PostgresTarget.open(ConnectionSettings.from_dsn(dsn)) as target:
            catalogue = replace(load_catalogue(), may_restart=True)
            settings = dict(target.settings(catalogue.settings_needed | CONSTRAINING_SETTINGS))
            return cls(settings, Circumstances(catalogue, settings, target.machine, target.capabilities), rehearsal)

    def try_one(self, rng: random.Random, *, rehearse: bool) -> None:
        """Draw a configuration, have it reviewed, and see that what passed fits; and that a server starts with it.

        Parameters
        ----------
        rng : random.Random
        rehearse : bool
            Whether it is drawn for this very machine, and what passed is given to a server.
        """
        there = self.really if rehearse else self._elsewhere(rng)
        there = replace(there, catalogue=there.catalogue.confront(there.settings, self._major, there.machine))
        configuration = drawn(rng, there.catalogue, there.settings)
        try:
            review(configuration, there)
        except ChangeRefused as refused:
            self.seen[f"refused for {_matter(refused)}"] += 1
            return
        self.seen["passed"] += 1
        ours = {name: value for name, value in configuration.items() if name not in there.settings}
        limit, in_force = allowed_bytes(there.machine), there.forecast(ours).total_bytes
        peak = there.forecast(configuration).total_bytes
        self.seen["passed, beyond the limit since what is in force is"] += peak > limit
        assert peak <= max(limit, in_force), f"{peak} of {limit} bytes: {configuration} on {there.machine}"
        if rehearse:
            self._start(configuration, there)

    @property
    def _major(self) -> int:
        return self.really.capabilities.major

    def _elsewhere(self, rng: random.Random) -> Circumstances:
        """Return another machine, on which other values are in force."""
        changed = {name: int(2 ** rng.uniform(*IN_FORCE[name])) for name in rng.sample(sorted(IN_FORCE), 3)}
        machine = Machine(
            int(2 ** rng.uniform(28, 42)),
            "RAM",
            cpus=2 ** rng.uniform(-1, 8),
            is_local=True,
            disk_free_bytes=rng.choice((None, int(2 ** rng.uniform(24, 45)))),
        )
        return replace(
            self.really,
            settings={
                **self.settings,
                **{name: replace(self.settings[name], value=changed[name]) for name in changed},
            },
            machine=machine,
            connections=rng.choice((None, int(2 ** rng.uniform(0, 11)))),
            active=rng.choice((None, int(2 ** rng.uniform(0, 9)))),
        )

    def _start(self, configuration: dict[str, KnobValue], there: Circumstances) -> None:
        texts = {
            name: written_text(value)
            for name, value in configuration.items()
            if name in there.settings and not same_value(value, there.settings[name].value, there.settings[name].kind)
        }
        self.seen["started a server with it"] += 1
        try:
            self.rehearsal.play(texts)
        except GenesisError as refused:
            raise AssertionError(f"passed, and no server starts with {texts}: {refused.what}") from refused


def drawn(rng: random.Random, catalogue: Catalogue, settings: dict[str, Setting]) -> dict[str, KnobValue]:
    """Return values for some knobs, now and then one that is not allowed."""
    # seldom one that is advice only
    known = catalogue if rng.random() < 0.1 else catalogue.tunable
    names = sorted(name for name in known if catalogue[name].scope is Scope.CLIENT or name in settings)
    chosen = rng.sample(names, rng.randint(1, min(12, len(names))))
    return {name: value_of(rng, catalogue[name]) for name in chosen}


def value_of(rng: random.Random, knob: Knob) -> KnobValue:
    """Return a value of a knob, most often one in its range."""
    if knob.special_values and rng.random() < 0.1:
        return rng.choice(knob.special_values)
    if knob.kind == "bool":
        return rng.random() < 0.5
    if knob.kind == "enum":
        return rng.choice(knob.choices)
    low, high = float(knob.minimum or 0), float(knob.maximum or 0)
    share = rng.uniform(-0.02, 1.02) if rng.random() < 0.1 else rng.choice((0.0, 1.0, rng.random(), rng.random()))
    value = low * (high / low) ** share if low > 0 else low + (high - low) * share
    return round(value) if knob.kind == "integer" else value


def _matter(refused: ChangeRefused) -> str:
    if "of memory" in refused.what:
        return "memory"
    for words, matter in (("more than", "order"), ("free disk", "disk"), ("it may be", "range")):
        if words in refused.what:
            return matter
    return "another reason"
