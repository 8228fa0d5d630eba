"""What each function does to the labels of its inputs: the rules of the trace, see `rule_table` for their contract."""

from nni_s3d.growth.graph.rules import elementwise, layers, products, reductions, shapes

RULES = elementwise.RULES | layers.RULES | products.RULES | reductions.RULES | shapes.RULES
