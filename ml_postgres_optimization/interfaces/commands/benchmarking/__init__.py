"""``benchmark``: the specification's tables, measured."""
