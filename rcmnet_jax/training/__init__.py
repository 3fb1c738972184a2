"""Training: optimizer, steps, loop, and scoring with a trained network."""
