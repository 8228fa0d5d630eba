import numpy as np
import torch
from torch import Tensor, nn

from nni_s3d.growth.graph.read import read_graph
from nni_s3d.growth.rehearsal.record import Recorder, changes_in_place, plain
from tests.cases import all_cases


def recorded(model: nn.Module, x: Tensor) -> Recorder:
    recorder = Recorder(model, read_graph(model, x))
    recorder.run(x)
    return recorder


@torch.no_grad()
def test_places_say_what_was_returned_and_whose_channels_it_has():
    model, x = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), torch.randn(5, 4)
    linear, tanh, last = recorded(model, x).places
    assert [place.name for place in (linear, tanh, last)] == ["linear", "tanh", "linear"]
    assert torch.equal(tanh.values[0], model[:2](x))
    assert linear.channels[0].tolist() == tanh.channels[0].tolist() == [[0, 1, 2]]
    assert last.channels[0].tolist() == [[3, 4]]
    assert plain((x, 3, {"dim": 1})) == (None, 3, {"dim": 1})


@torch.no_grad()
def test_values_are_those_at_the_time_of_the_call():
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = self.a(x)
            half = h[:, :3]
            half.mul_(2)
            h += 1
            nn.functional.relu(h, inplace=True)
            h[:, 0] = 5
            return self.b(h)

    model, x = InPlace(), torch.randn(5, 4)
    places = {place.name: place for place in recorded(model, x).places}
    h = model.a(x)
    places_of_linear = [place for place in recorded(model, x).places if place.name == "linear"]
    assert torch.equal(places_of_linear[0].values[0], h)
    assert torch.equal(places["getitem"].values[0], h[:, :3])
    assert torch.equal(places["mul"].values[0], 2 * h[:, :3])


def test_functions_that_may_change_their_arguments():
    x = torch.ones(2)
    changing = [(torch.relu_, (x,), {}), (Tensor.__iadd__, (x, 1), {}), (Tensor.__setitem__, (x, 0, 1), {})]
    changing += [(nn.functional.relu, (x,), {"inplace": True}), (nn.functional.hardswish, (x, True), {})]
    changing += [(torch.add, (x, x), {"out": x})]
    assert all(changes_in_place(*call) for call in changing)
    assert not any(changes_in_place(f, (x,), {}) for f in (torch.relu, Tensor.__add__, Tensor.__getitem__))


@torch.no_grad()
@all_cases
def test_all_rows_of_a_network_get_the_numbers_of_its_graph(case):
    model, x = case.model(), case.inputs()
    graph, recorder = read_graph(model, x), Recorder(model, read_graph(model, x))
    recorder.run(x)
    met = [place.channels[0].ravel() for place in recorder.places if place.channels and place.channels[0] is not None]
    assert set(np.concatenate(met).tolist()) - {-1} == set(range(graph.num_channels))
