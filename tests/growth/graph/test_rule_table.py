import torch

from nni_s3d.growth.graph.rule_table import Rule, rule_table


def example(
    notes: object, call: object, out: object, input: object, dim: int = 0, *rest: object, **more: object
) -> None:
    """A rule for functions of (input, dim, ...)."""


def test_arguments_are_bound_by_the_names_of_the_rule():
    rule = Rule(example, ("input",))
    bound = rule.bind(("x", 1, 2), {"keepdim": True})
    assert bound.arguments == {"input": "x", "dim": 1, "rest": (2,), "more": {"keepdim": True}}
    assert rule.bind((), {"input": "x", "axis": 3}).arguments == {"input": "x", "dim": 3}
    assert rule.bind(("x",), {"out": None}).arguments == {"input": "x"}


def test_arguments_that_do_not_bind_are_none():
    rule = Rule(example, ("input",))
    assert rule.bind((), {"dim": 1}) is None
    assert rule.bind(("x",), {"input": "x"}) is None
    assert rule.bind(("x",), {"out": torch.ones(1)}) is None
    assert Rule(lambda notes, call, out, input: None, ()).bind(("x", 1), {}) is None


def test_a_rule_is_entered_under_every_name():
    table, rule = rule_table()

    @rule("one", "two", reads=("input", "other"))
    def function(*_: object) -> None: ...

    assert table["one"] is table["two"]
    assert table["one"].function is function
    assert table["one"].reads == ("input", "other")
