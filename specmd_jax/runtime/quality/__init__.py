"""What a lossy cache costs: the closed loop and its measure in nats."""
