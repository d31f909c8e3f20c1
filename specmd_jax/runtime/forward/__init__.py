"""The decoder cut at its gates: segments, a pass under way, a pass dispatched whole."""
