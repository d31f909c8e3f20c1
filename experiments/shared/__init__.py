"""What the experiments share: recorded traces in, tables and pages out."""
