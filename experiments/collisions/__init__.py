"""Who misses, and how much of it is eviction just before use? The paper's figures 4, 5 and 8."""
