"""Closed forms of hit rates, TTFT and TPOT, and how far off they were; nothing is replayed."""
