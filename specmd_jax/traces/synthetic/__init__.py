"""Routing drawn from a model of popularity and locality, calibrated on recordings."""
