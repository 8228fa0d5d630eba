"""How much each neuron is worth, and which are the first to go."""
