"""Experts in host memory and in device slots, and the feed-forward over them."""
