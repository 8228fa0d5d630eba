import torch

from nni_s3d.growth.graph.reach import Reach


def followed(*calls):
    """Return a reach that has followed calls (given, outputs) from a tensor on, and that tensor."""
    reach, start = Reach(), torch.rand(3)
    reach.begin("start", [start])
    for given, outputs in calls:
        reach.follow([start if x is None else x for x in given], outputs)
    return reach, start


def test_floating_numbers_lead_on_and_integers_do_not():
    between, far, places = torch.rand(3), torch.rand(3), torch.arange(3)
    reach, start = followed(([None], [between, places]), ([between], [far]))
    assert reach.of([start]) == reach.of([between]) == reach.of([far, places]) == {"start"}
    picked, mask = torch.rand(3), torch.rand(3) > 0.5
    reach.follow([torch.rand(3), places, mask], [picked])
    assert reach.of([picked, places, mask]) == set()


def test_what_is_changed_in_place_leads_on_through_all_its_views():
    changed, written = torch.rand(4, 3), torch.rand(2)
    view = changed[1]
    reach, _ = followed(([view, None], [view]), ([written, None], []))
    assert reach.of([changed]) == reach.of([changed.T]) == reach.of([written]) == {"start"}


def test_several_sources_and_none():
    reach, start = Reach(), torch.rand(3)
    reach.follow([start], [start])
    assert not reach.begun
    other, both, sparse = torch.rand(3), torch.rand(3), torch.eye(2).to_sparse()
    reach.begin(1, [start])
    reach.begin(2, [other])
    reach.follow([start, other], [both])
    reach.follow([both], [sparse])
    assert reach.of([sparse]) == {1, 2}
    assert reach.of([torch.rand(3)]) == set()
