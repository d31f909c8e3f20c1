"""Questions put to a trace: a choice becomes a setup, a setup a run, a run a row of figures."""
