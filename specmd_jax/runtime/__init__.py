"""What runs a model for its experts' sake: it records the choices and moves the weights."""
