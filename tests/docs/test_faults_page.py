"""The examples of docs/faults.md run, one after the other, as somebody would type them."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "faults.md"


def test_the_examples_run(own_server, folder):
    names = {"dsn": own_server.dsn, "server": own_server, "home": folder / "of-the-page"}
    lock, standby, schedule = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    exec(lock, names)
    assert names["record"].failure is None
    assert names["record"].reached_total >= 1
    exec(standby, names)
    assert names["load"].counters.failed_total > 0
    assert not names["standby"].is_running
    exec(schedule, names)
    assert names["injector"].last_failure is None
    assert {record.kind for record in names["marks"]} <= {"termination", "lock_stall"}
    assert len(names["injector"].records) >= 1
