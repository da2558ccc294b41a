"""Links between workers: who may have one, and what happens on it."""
