"""The link and what travels on it: demand loads, the prefetch queue, the watchdog."""
