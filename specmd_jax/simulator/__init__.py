"""A trace served event by event: the step, the scan over a trace, the batch of configurations."""
