"""Which failures may be tried again, and how long to wait."""
