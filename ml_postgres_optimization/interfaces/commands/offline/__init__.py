"""Tuning for a workload that runs for the tuning alone."""
