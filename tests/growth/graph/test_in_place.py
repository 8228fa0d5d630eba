import torch

from nni_s3d.growth.graph.in_place import ChangesInPlace


def test_other_views_are_told_when_they_are_read():
    changes, x = ChangesInPlace(), torch.zeros(4)
    changes.note("mul", [], [x])
    first, second = x[:2], x[2:]
    changes.note("getitem", [x], [first])
    changes.note("getitem", [x], [second])
    changes.note("add", [first], [first])
    found = list(changes.read([first, second, x]))
    assert [(a is first, b) for (a, b), _ in found] == [(True, second), (True, x)]
    assert {reason for _, reason in found} == {"add changes it in place, and a view of it is read afterwards"}


def test_functions_that_return_what_they_were_given_change_nothing():
    changes, x = ChangesInPlace(), torch.zeros(4)
    changes.note("mul", [], [x])
    changes.note("getitem", [x], [x[:2]])
    changes.note("contiguous", [x], [x])
    assert not list(changes.read([x]))
