"""What a run was, folded from its intervals as they are read."""
