"""What a gate says: the chosen experts and scores, brought to the host as an event."""
