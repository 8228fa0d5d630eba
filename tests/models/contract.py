"""What every network that is built from widths must do: its channel groups are its widths, and it can grow."""

import pytest
import torch

import nni_s3d as s3d


class ModelContract:
    """Inherit as `Test...`; `conftest` runs every test with every one of CASES."""

    CASES = ()  # the name of each, a function that makes the network, and the shape of its inputs
    REFUSED = frozenset({"classifier"})  # the groups that cannot be split

    def test_groups_are_named_after_the_widths(self, build, shape):
        graph = s3d.trace(build(), torch.zeros(shape))
        assert {group.name for group in graph if not group.splittable} == self.REFUSED

    @pytest.mark.parametrize("copies", [2, 3, 4])
    def test_epsilon_zero_changes_nothing(self, build, shape, copies):
        torch.manual_seed(0)
        model = build().double().eval()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
        inputs = torch.randn(shape, dtype=torch.float64)
        graph = s3d.trace(model, inputs)
        some = {g.name: torch.where(torch.arange(g.width) % 2 == 0, copies, 1) for g in graph.splittable_groups}
        plan = s3d.plan_from_copies(graph, some, c=1.3)
        grown = s3d.split(model, graph, plan, epsilon=0.0).model
        assert plan.neurons > 0
        assert (grown(inputs) - model(inputs)).abs().max() < 1e-10


def widths_of(model: torch.nn.Module, *shape: int) -> dict[str, int]:
    """Return the widths of a network's channel groups that can be split."""
    return s3d.trace(model, torch.randn(shape)).widths
