"""The extended test."""
