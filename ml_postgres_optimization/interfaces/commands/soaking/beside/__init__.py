"""The optimiser beside an extended test: a process of its own, and what is told of the settings meanwhile."""
