"""Realistic load on our own tables: mixes, arrivals, and the generator that drives them."""
