"""What the rules say of a configuration that has changed since the ground was surveyed."""

from types import SimpleNamespace

import pytest

from ml_postgres_optimization.interfaces.workbench.ground import Ground
from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.configuration import CONCURRENCY
from ml_postgres_optimization.target.simulated import SimulatedTarget
from ml_postgres_optimization.telemetry import VirtualClock
from ml_postgres_optimization.tuning import rule_drafts


@pytest.fixture(params=[None, 40], ids=["sessions of others", "our own load"])
def ground(request):
    target = SimulatedTarget(VirtualClock(), seed=1)
    settings = target.settings(load_catalogue().settings_needed)
    catalogue = load_catalogue().confront(settings, 15, target.machine)
    session = SimpleNamespace(target=target)
    return Ground(session, catalogue, settings, connections=request.param, concurrency=request.param)


def test_what_the_rules_say_nothing_of_stays_as_it_was_found(ground):
    named = set(ground.advised(ground.initial).difference(ground.initial)) - {CONCURRENCY}
    assert named
    others = set(ground.initial) - named - {CONCURRENCY}
    other = min(name for name in others if type(ground.initial[name]) is int)
    changed = ground.initial[other] + 1
    found = ground.initial.replaced({other: changed, **{name: ground.initial[name] for name in named}})
    advised = ground.advised(found)
    assert advised[other] == changed
    assert set(advised.difference(found)) - {CONCURRENCY} == named
    drafts = [draft.values(found) for draft in rule_drafts(ground.advised, found)]
    assert not any(other in values for values in drafts)
