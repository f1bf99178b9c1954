"""A chaos run: random faults, the same for the same seed, over a whole job; then a checker that knows nothing of our code."""
