import torch

from nni_s3d.growth.graph.rule_table import Rule, rule_table


def example(
    notes: object, call: object, out: object, input: object, dim: int = 0, *rest: object, **more: object
) -> None:
    """A rule for functions of (input, dim, ...)."""


def test_arguments_are_known_by_the_names_of_the_rule():
    rule = Rule(example, ("input", "dim"))
    assert rule.bind(("x", 1, 2), {"keepdim": True}) == ({"keepdim": True}, ["x", 1])
    assert rule.bind((), {"input": "x", "axis": 3}) == ({"input": "x", "dim": 3}, ["x", 3])
    assert rule.bind(("x",), {"out": None}) == ({}, ["x"])
    assert rule.bind(("y",), {"axis": 0}) == ({"dim": 0}, ["y", 0])
    rest = Rule(example, ("rest", "more"))
    assert rest.bind(("x", 1, 2, 3), {"keepdim": True, "eps": 5}) == ({"keepdim": True, "eps": 5}, [2, 3, True, 5])
    assert rest.bind(("x",), {}) == ({}, [])


def test_arguments_that_do_not_bind_are_none():
    rule = Rule(example, ("input",))
    for _ in range(2):
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
