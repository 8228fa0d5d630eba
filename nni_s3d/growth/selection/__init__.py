"""How many copies each neuron gets, and where they go: schemes, policies, plans."""
