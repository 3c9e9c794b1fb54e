"""Only here is a tuned system changed: guard, journal, constraints, rollback."""
