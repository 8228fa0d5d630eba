"""A slimmable network (Yu et al., 2019): one set of weights for all sizes, and batch norms of each.

Every width reads the first channels of the weights of the largest. All of them are trained in every step, on the sum of
their losses.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

import nni_s3d as s3d
from growth_ways.bench import Bench
from growth_ways.schedules import factor, measured_row, resumed, run_steps, steps_of
from growth_ways.settings import Row
from growth_ways.widths import even_of_all_sizes


class Slimmable(nn.Module):
    """Networks of several widths, the widest last, which share its weights but for batch norms."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        layers = [(name, m) for name, m in networks[-1].named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        self._shared = [f"{layer}.{name}" for layer, module in layers for name, _ in module.named_parameters()]

    def weights(self, number: int) -> dict[str, Tensor]:
        """Return the part of the shared weights that a network reads."""
        own, widest = (dict(network.named_parameters()) for network in (self.networks[number], self.networks[-1]))
        return {name: widest[name][tuple(map(slice, own[name].shape))] for name in self._shared}

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """Return the outputs of every network."""
        return [functional_call(net, self.weights(number), inputs) for number, net in enumerate(self.networks)]

    def write_weights(self) -> None:
        """Give every network its part of the shared weights as its own."""
        for number, network in enumerate(self.networks):
            network.load_state_dict(self.weights(number), strict=False)


def summed_loss(outputs: list[Tensor], targets: Tensor) -> Tensor:
    return torch.stack([F.cross_entropy(output, targets) for output in outputs]).sum()


def slimmed(bench: Bench) -> Iterator[Row]:
    """Train networks of all sizes together."""
    networks = [bench.build(widths) for widths in even_of_all_sizes(bench)]
    graphs = [bench.graph(network) for network in networks]
    model, steps = Slimmable(networks), steps_of(bench, bench.epochs(bench.total, *graphs))
    images = run_steps(
        model,
        resumed(model, None),
        bench.training_loader(0),
        steps,
        lambda step: bench.run.rate * factor(step, steps),
        summed_loss,
    )
    model.write_weights()
    bench.spent += sum(3 * s3d.count(graph).macs * images for graph in graphs)
    for size, (network, graph) in enumerate(zip(networks, graphs, strict=True)):
        yield measured_row(bench, network, graph, size)
