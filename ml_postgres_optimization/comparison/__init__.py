"""The specification's tables: base against optimised, in blocks that alternate on the same load."""
