"""A plan carried out: tensors, then modules, then the model and its optimizer."""
