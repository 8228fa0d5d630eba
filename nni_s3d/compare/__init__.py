"""Search strategies side by side, at an equal cost of training."""
