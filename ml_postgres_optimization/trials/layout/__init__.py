"""How a trial is laid out, in time and over sessions."""
