import pytest

from nni_s3d.search.front import Front


def network(key, accuracy, params, macs=0):
    return {"key": key, "default": accuracy, "params": params, "macs": macs}


@pytest.mark.parametrize(
    ("accuracy", "params", "better"),
    [
        (0.8, 100, None),  # as good as a
        (0.8, 101, "a"),
        (0.79, 100, "a"),
        (0.79, 99, None),
        (0.85, 150, None),
        (0.9, 250, "b"),
        (0.7, 300, "a"),
    ],
)
def test_a_network_is_off_the_front_where_another_one_is_better(accuracy, params, better):
    front = Front()
    front.add("a", network("1", 0.8, 100))
    front.add("b", network("2", 0.9, 200))
    assert front.better(network("3", accuracy, params), "params") == better


def test_the_front_is_against_either_cost():
    front = Front()
    front.add("a", network("1", 0.8, 100, 30))
    assert front.better(network("2", 0.8, 200, 20), "params") == "a"
    assert front.better(network("2", 0.8, 200, 20), "macs") is None


def test_a_network_is_added_once():
    front = Front()
    front.add("a", network("1", 0.8, 100))
    front.add("a of a branch", network("1", 0.8, 100))
    assert front.better(network("2", 0.7, 100), "params") == "a"
