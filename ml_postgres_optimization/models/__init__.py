"""Random forests over windows: latency with an interval, and the probability of each error."""
