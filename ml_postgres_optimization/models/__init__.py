"""Random forests over windows: latency with an interval, and the probability of each error.

Nothing is re-exported: importing a forest brings scikit-learn along, which takes a second or two and 150 MB.
"""
