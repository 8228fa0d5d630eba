"""What is trained: data, model and training recipe."""
