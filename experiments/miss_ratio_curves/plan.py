"""What the miss-ratio curves are drawn of."""

POLICIES = ("lru", "lfu", "least-stale", "score-based", "fld-cyclic", "belady")
CAPACITIES = 24  # a curve, evenly spread on a logarithmic axis
TABLE_SHARES = (0.05, 0.1, 0.25, 0.5)  # of the experts; the page lists these
