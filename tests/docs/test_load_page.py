"""The examples of docs/load.md run, one after the other, as somebody would type them."""

import re
from pathlib import Path

from ml_postgres_optimization.workload import create_tables

PAGE = Path(__file__).resolve().parents[2] / "docs" / "load.md"


def test_the_examples_run(database):
    create_tables(database, 0.005)
    names = {"dsn": database}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block.replace("time.sleep(1)", "time.sleep(0.3)"), str(PAGE), "exec"), names)
        counters = names["load"].counters
        assert counters.due_total == counters.succeeded_total + counters.skipped_total > 0
    assert sum(len(batch) for batch in names["batches"]) > 0
