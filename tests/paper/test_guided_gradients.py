import copy

import torch
from torch import nn

from paper.guided_gradients import Seen


def network(norms=False):
    torch.manual_seed(0)
    between = [nn.BatchNorm2d(6), nn.ReLU()] if norms else [nn.ReLU()]
    after = [nn.BatchNorm2d(5), nn.ReLU()] if norms else [nn.ReLU()]
    model = nn.Sequential(nn.Conv2d(2, 6, 3), *between, nn.Conv2d(6, 5, 3), *after, nn.Flatten(), nn.Linear(45, 3))
    for norm in (layer for layer in model if isinstance(layer, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.uniform_(norm.running_mean, -0.3, 0.3)
        nn.init.uniform_(norm.bias, -0.3, 0.3)
    return model.eval()


def test_gradients_pass_where_they_and_the_inputs_are_positive():
    """Against the rule written out for two convolutions."""
    model, image = network(), torch.randn(1, 2, 7, 7)
    first, second = copy.deepcopy(model[0]), copy.deepcopy(model[2])
    seen = Seen(model, image)
    below = first(image)
    output = second(below.relu())
    with torch.no_grad():
        signal = torch.zeros_like(output)
        signal[:, 3] = (output[:, 3] > 0).float()
        signal = nn.functional.conv_transpose2d(signal, second.weight)
        signal = signal.clamp(min=0) * (below > 0)
        expected = nn.functional.conv_transpose2d(signal, first.weight)[0]
    assert torch.allclose(seen.picture(3), expected, atol=1e-6)


def test_without_relus_below_it_is_the_gradient():
    torch.manual_seed(0)
    model, image = nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU()), torch.randn(1, 2, 7, 7, requires_grad=True)
    (expected,) = torch.autograd.grad(model(image)[0, 1].sum(), image)
    assert torch.allclose(Seen(model, image.detach()).picture(1), expected[0], atol=1e-6)


def test_a_filter_in_its_own_place_looks_the_same_and_another_does_not():
    for norms in (False, True):
        seen = Seen(network(norms), torch.randn(1, 2, 7, 7))
        theta = seen.theta(2)
        assert torch.allclose(seen.picture(2, theta), seen.picture(2))
        assert not torch.allclose(seen.picture(2, seen.theta(1)), seen.picture(2))


def test_what_is_seen_goes_through_the_batch_norm_of_the_filter():
    model, image = network(norms=True), torch.randn(1, 2, 7, 7)
    whole = model[:6](image)[0, 4].sum()
    seen = Seen(model, image)
    with torch.no_grad():
        model[4].weight[4] *= 2
        model[4].bias[4] *= 2
    assert whole > 0
    assert torch.allclose(Seen(model, image).picture(4), 2 * seen.picture(4), atol=1e-5)
