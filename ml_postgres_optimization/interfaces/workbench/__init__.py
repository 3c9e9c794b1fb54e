"""What an optimisation stands on: the ground, the load, what was learned, and who keeps what happens."""
