"""What a run must hold, and whether it did."""
