"""One block: the load of an arm, the faults beside it, and what came of it."""
