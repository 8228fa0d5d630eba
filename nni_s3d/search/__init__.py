"""What is tried next, without NNI: specs, lineages, the store, trials."""
