"""A growth that is tried out in the model before its graph is believed."""
