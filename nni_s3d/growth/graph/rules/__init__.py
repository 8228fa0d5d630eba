"""What each function does to the labels of its inputs: the rules of the trace.

A rule takes the tracer, the function that was called, its output and its arguments, and returns the labels of the
output (a tuple of them for a tuple of outputs). It notes the layers and the work that it sees, and seals what it cannot
follow.
"""

from nni_s3d.growth.graph.rules import elementwise, layers, products, reductions, shapes

RULES = elementwise.RULES | layers.RULES | products.RULES | reductions.RULES | shapes.RULES
