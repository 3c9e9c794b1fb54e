-- What the filling has left to write is written now, not while something is measured.
CHECKPOINT
