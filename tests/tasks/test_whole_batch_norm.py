from functools import partial

import pytest
import torch
from torch import nn

from nni_s3d.tasks import ranks
from nni_s3d.tasks.whole_batch_norm import whole_batch_norms
from tests.processes import side_by_side

KINDS = {
    "plain": (lambda: nn.BatchNorm1d(4), (7, 4)),
    "images": (lambda: nn.BatchNorm2d(4, momentum=None), (7, 4, 3, 2)),
    "no affine": (lambda: nn.BatchNorm1d(4, affine=False), (7, 4, 5)),
    "no statistics": (lambda: nn.BatchNorm1d(4, track_running_stats=False), (7, 4)),
}


def run(kind):
    """Return outputs, derivatives and running statistics of this process' share of two batches."""
    make, shape = KINDS[kind]
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(shape, generator=generator, dtype=torch.float64) * 3 + 1
    share = whole[ranks.rank() :: ranks.world_size()].clone().requires_grad_()
    norm = make().double()
    if norm.affine:
        nn.init.uniform_(norm.weight, generator=generator)
        nn.init.uniform_(norm.bias, generator=generator)
    with whole_batch_norms(norm):
        norm(share.detach() + 1)
        output = norm(share)
        (output**3).sum().backward()
        kept = norm.eval()(share.detach())
    gradients = [parameter.grad for parameter in norm.parameters()]
    buffers = [float(value) for buffer in norm.buffers() for value in buffer.reshape(-1)]
    as_numbers = [x.tolist() for x in (output, share.grad, kept, *gradients)]
    return as_numbers, buffers, type(norm).__name__, hasattr(norm, "process_group")


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_are_those_of_the_whole_batch(kind):
    (expected, buffers, *_), shares = run(kind), side_by_side(partial(run, kind))
    by_sample, gradients = expected[:2], expected[3:]
    if kind != "no statistics":  # without them, evaluation looks at the batch that it is given
        by_sample = expected[:3]
    for i, whole in enumerate(by_sample):
        for rank, (share, *_) in enumerate(shares):
            torch.testing.assert_close(torch.tensor(share[i]), torch.tensor(whole[rank::2]))
    for i, whole in enumerate(gradients, 3):
        torch.testing.assert_close(sum(torch.tensor(share[i]) for share, *_ in shares), torch.tensor(whole))
    for _, of_process, name, left_over in shares:
        assert of_process == pytest.approx(buffers, abs=1e-12)
        assert (name, left_over) == (KINDS[kind][0]().__class__.__name__, False)
