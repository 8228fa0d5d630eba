"""What each function does to the labels of its inputs: the rules of the trace, see `rule_table` for their contract."""

from nni_s3d.growth.graph.rules import attention, elementwise, layers, norms, products, reductions, shapes, shuffles

RULES = elementwise.RULES | layers.RULES | norms.RULES | reductions.RULES | shapes.RULES
RULES |= products.RULES | attention.RULES | shuffles.RULES
