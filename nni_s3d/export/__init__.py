"""A network that an experiment has found, in files that other programs read."""
