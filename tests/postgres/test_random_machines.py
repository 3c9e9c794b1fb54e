"""What the guard lets pass fits into memory, and a server starts with it; 10,000: benchmarks/memory_guard.py."""

import random

import pytest
from random_machines import Chance

from ml_postgres_optimization.errors import ChangeRefused
from ml_postgres_optimization.target.restart import Rehearsal

TRIED, REHEARSED = 400, 4


def test_what_passes_fits_and_starts_a_server(server, binaries, folder):
    with Rehearsal(binaries, parent=folder) as rehearsal:
        chance = Chance.of(server.dsn, rehearsal)
        for number in range(TRIED):
            chance.try_one(random.Random(number), rehearse=number < REHEARSED)
    assert chance.seen["passed"] > TRIED / 5
    assert chance.seen["refused for memory"] > TRIED / 20
    assert chance.seen["started a server with it"]


def test_what_does_not_start_is_seen(server, binaries, folder, monkeypatch):
    def refuse(_rehearsal, _values):
        raise ChangeRefused("no", "never")

    monkeypatch.setattr(Rehearsal, "play", refuse)
    with Rehearsal(binaries, parent=folder) as rehearsal, pytest.raises(AssertionError, match="no server starts"):
        for number in range(50):
            Chance.of(server.dsn, rehearsal).try_one(random.Random(number), rehearse=True)


def test_what_does_not_fit_is_seen(server, binaries, folder, monkeypatch):
    monkeypatch.setattr("random_machines.review", lambda *_: None)
    with Rehearsal(binaries, parent=folder) as rehearsal, pytest.raises(AssertionError, match=" bytes: "):
        chance = Chance.of(server.dsn, rehearsal)
        for number in range(100):
            chance.try_one(random.Random(number), rehearse=False)
