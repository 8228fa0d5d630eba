"""The channel graph: the parameters of each neuron, its readers, and its cost."""
