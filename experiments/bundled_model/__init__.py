"""How the bundled model was made: its text, its training, its card."""
