"""The science of splitting: pure PyTorch, no NNI, no files, no printing."""
