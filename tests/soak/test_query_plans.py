"""The plans of the load's statements, seen on a server without running them."""

from types import SimpleNamespace

import psycopg
import pytest
from psycopg import sql

from ml_postgres_optimization.errors import TargetError
from ml_postgres_optimization.interfaces.commands.soaking.accounts import Accounts
from ml_postgres_optimization.soak.interval import EventKind, IntervalState
from ml_postgres_optimization.soak.journal import Totals
from ml_postgres_optimization.workload import SOAK_MIX, OperationKind, OperationMix, create_tables
from ml_postgres_optimization.workload.accounting import Ledger, QueryPlans

STATEMENTS = {
    "read",
    "write",
    "update",
    "delete",
    "transaction_event",
    "transaction_move",
    "transaction_operation",
}
EVERY_KIND = OperationMix(dict.fromkeys(OperationKind, 1))


@pytest.fixture
def ledger(database):
    create_tables(database, 0.005)
    with Ledger(database, "run") as taken:
        taken.take(0, is_new=True)
        yield taken


def execute(database, statement):
    with psycopg.connect(database, autocommit=True) as connection:
        return (
            connection.execute(statement).fetchone()
            if statement.startswith("SELECT")
            else connection.execute(statement)
        )


def test_the_statements_of_a_mix_have_a_plan_each(ledger):
    plans = QueryPlans(ledger, SOAK_MIX).look()
    assert set(plans) == STATEMENTS
    assert "Index Scan using accounts_pkey on accounts" in plans["read"].nodes
    assert QueryPlans(ledger, SOAK_MIX).look() == plans
    everything = QueryPlans(ledger, EVERY_KIND).look()
    assert set(everything) == STATEMENTS | {"aggregate", "join", "bulk_insert"}
    assert len({plan.hash for plan in everything.values()}) == len(everything)


def test_looking_runs_nothing_and_leaves_nothing(ledger, database):
    count = "SELECT count(*), sum(balance) FROM genesis_load.operations, genesis_load.accounts"
    before = execute(database, count)
    QueryPlans(ledger, EVERY_KIND).look()
    assert execute(database, count) == before
    left = "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'genesis%'"
    assert ledger.run(lambda connection: connection.execute(left).fetchone(), "look") == (0,)
    mode = ledger.run(lambda connection: connection.execute("SHOW plan_cache_mode").fetchone(), "look")
    assert mode == ("auto",)


def test_a_plan_that_changes_is_told_once(ledger, database):
    accounts = Accounts(SimpleNamespace(log=None), ledger, 0.005, QueryPlans(ledger, SOAK_MIX))
    accounts.review(IntervalState.MEASURED, Totals())
    (beginning,) = accounts.events()
    assert beginning.kind is EventKind.RUNNER
    assert all(f"{name} " in beginning.text for name in STATEMENTS)
    accounts.review(IntervalState.MEASURED, Totals())
    assert accounts.events() == ()  # a minute has not passed
    execute(database, "ALTER TABLE genesis_load.accounts DROP CONSTRAINT accounts_pkey CASCADE")
    for changed in (True, False):
        accounts._plans_due_seconds = 0.0
        accounts.review(IntervalState.MEASURED, Totals())
        told = accounts.events()
        assert {event.kind for event in told} == ({EventKind.PLAN} if changed else set())
        if changed:
            (read,) = [event.text for event in told if "plan of read" in event.text]
            assert read.startswith("The plan of read has changed: Index Scan using accounts_pkey on accounts (")
            assert "→ Seq Scan on accounts (" in read


def test_a_locked_table_is_waited_for_by_nobody(ledger, database):
    plans = QueryPlans(ledger, SOAK_MIX)
    with psycopg.connect(database) as holder:
        holder.execute(sql.SQL("LOCK TABLE genesis_load.accounts IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(TargetError, match="holds a lock that we need"):
            plans.look()
    assert set(plans.look()) == STATEMENTS
