import pytest

from nni_s3d.errors import ConfigError, StoreError
from nni_s3d.search.lineage import state_path
from nni_s3d.search.track import Track, read_track
from nni_s3d.tasks.search_space import Space
from nni_s3d.testing.contract import SPACE

ONE = "c1.3-m2-s1"
WIDTHS = {"a": 4, "b": 4}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"spec": {}}, r"state\.json: expected `parameters`, got `spec`, of an older version; start with a new store"),
        ({"parameters": 3}, r"state\.json: track\.parameters: expected a mapping, got 3"),
        ({"parameters": WIDTHS}, f"expected the parameters of lineage '{ONE}', got those of None"),
        ({"parameters": WIDTHS | {"lineage": "x"}}, f"expected the parameters of lineage '{ONE}', got those of 'x'"),
        ({"parameters": WIDTHS | {"lineage": ONE}, "status": "lost"}, "status: expected one of ready, .*, got 'lost'"),
    ],
)
def test_a_state_that_is_none_of_this_lineage_is_refused(store, state, message):
    store.write_json(state_path(ONE), state)
    with pytest.raises((StoreError, ConfigError), match=message):
        read_track(store, ONE, Space.parse(SPACE))
    assert store.read_json(state_path(ONE)) == state


def test_a_lineage_begins_at_the_lowest_widths(store):
    track = Track.start(ONE, Space.parse(SPACE))
    assert (track.step, track.status, track.parameters["a"], track.parameters["lineage"]) == (0, "ready", 4, ONE)
    assert read_track(store, ONE, Space.parse(SPACE)) == track
