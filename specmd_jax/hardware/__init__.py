"""How fast a machine is, how big an expert is on it, and what fits."""
