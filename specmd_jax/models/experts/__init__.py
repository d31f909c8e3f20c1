"""Routed experts: their weights, packed copies, and the feed-forward over them."""
