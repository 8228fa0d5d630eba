import pytest
import torch
from torch.nn import functional as F

import nni_s3d as s3d
from paper.small_transformer import SmallTransformer
from paper.transformer_run import loss_fn, traced


@pytest.fixture(params=["gated", "plain"])
def network(request):
    torch.manual_seed(0)
    return SmallTransformer(20, 64, [6, 5, 7, 6], request.param, width=16, heads=2).double().eval()


def texts(count=3):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(20, (count, 64), generator=generator) for _ in range(2)]


def test_nothing_tells_what_comes_next(network):
    inputs, _ = texts()
    changed = inputs.clone()
    changed[:, 40] = (changed[:, 40] + 1) % 20
    before, after = network(inputs), network(changed)
    assert torch.equal(before[:, :40], after[:, :40])
    assert not torch.allclose(before[:, 40:], after[:, 40:])


def test_a_split_of_no_length_changes_nothing(network):
    inputs, targets = texts()
    graph = traced(network)
    assert list(graph.widths.values()) == [6, 5, 7, 6]
    spectra = s3d.spectrum(s3d.SplittingOperator(network, graph, [(inputs, targets)], loss_fn))
    plan = s3d.select(spectra, graph, s3d.TopFraction(0.5), c=3.0, copies=4)
    grown = s3d.split(network, graph, plan, epsilon=0.0).model
    assert sum(traced(grown).widths.values()) > 24
    assert (grown(inputs) - network(inputs)).abs().max() < 1e-8


def test_the_splitting_matrix_is_not_zero_and_predicts_the_change_of_the_loss(network):
    inputs, targets = texts()
    graph = traced(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4)  # from the small weights that training begins with
    spectra = s3d.spectrum(s3d.SplittingOperator(network, graph, [(inputs, targets)], loss_fn))
    assert min(float(spectrum.lambda_min.min()) for spectrum in spectra.values()) < -1e-4
    plan = s3d.select(spectra, graph, s3d.TopK(1))
    epsilon, before = 1e-2, F.cross_entropy(network(inputs).flatten(0, 1), targets.flatten())
    after = loss_fn(s3d.split(network, graph, plan, epsilon).model(inputs), targets)
    assert (after - before).item() == pytest.approx(epsilon**2 / 2 * plan.gain, rel=2e-2)
