"""Trials that can be believed: design, sequential test, verdict."""
