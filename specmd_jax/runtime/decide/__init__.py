"""The simulator's own step, compiled for a run, and what follows from its decisions."""
