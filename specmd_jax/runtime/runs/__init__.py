"""What a verb runs: generation, trace replay, the demo; prompts and texts."""
