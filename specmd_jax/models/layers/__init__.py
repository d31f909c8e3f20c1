"""The layers of a decoder: norms, rotary positions, attention, router, dense feed-forward."""
