"""Runs into traces: the recording model and where a recording came from."""
