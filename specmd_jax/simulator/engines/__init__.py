"""Faster ways to the scan's own counts, for the strategies that allow them; exact, or refused.

`scores` runs a policy over a trace once, for all configurations; `curve` reads every capacity off
one stack.
"""
