"""Grow PyTorch networks by signed neuron splitting (S3D), alone or as a search strategy of NNI.

Public names are loaded when they are first used (`__init__.pyi` says from where), so that a tuner, which has ten
seconds to start, and the command line do not wait for PyTorch.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
