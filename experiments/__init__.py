"""Questions put to traces, models and machines, a folder each; README.md is the index."""
