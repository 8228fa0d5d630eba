"""The adapters to NNI: the only code that imports it, and only where it must."""
