"""What is done to a network right after it has grown, so that its training is not held back by what it inherits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import nni_s3d as s3d
from nni_s3d.growth.graph.channels import ChannelGroup, Layer
from nni_s3d.growth.graph.theta import pack, scatter
from nni_s3d.growth.selection.plan import second_copies


@torch.no_grad()
def recalibrate(model: nn.Module, inputs: Tensor) -> None:
    """Give every batch norm the statistics of what it reads now, and leave the function of the network as it is.

    Copies move along directions that shift the mean of what batch norm reads, above all. In training mode it takes the
    shift away again, and with it the gain, which was computed at fixed statistics; so the affine map takes it over.
    """

    def renew(norm: Any, arguments: tuple[Tensor]) -> None:
        dims = [dim for dim in range(arguments[0].dim()) if dim != 1]
        variance, mean = torch.var_mean(arguments[0], dims, correction=0)
        old, new = (norm.running_var + norm.eps).sqrt(), (variance + norm.eps).sqrt()
        norm.bias += norm.weight * (mean - norm.running_mean) / old
        norm.weight *= new / old
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)

    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(renew) for norm in norms]
    model.eval()(inputs)
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def shrink_and_perturb(model: nn.Module, shrink: float, perturb: float, seed: int) -> None:
    """Shrink the weights of all layers, and add noise of so many of their standard deviations (Ash and Adams, 2020)."""
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            noise = torch.randn(layer.weight.shape, generator=generator) * layer.weight.std()
            layer.weight.mul_(shrink).add_(perturb * noise)


@torch.no_grad()
def quicken(result: s3d.SplitResult, weights: Mapping[str, Tensor]) -> None:
    """Multiply the theta of copies by sqrt(|w_j|) where a batch norm takes this out again, in place.

    The output weight w_j multiplies the gradient of a copy. A gradient with respect to s theta is that with respect to
    theta over s, and turns a vector that is s times as long, so a copy turns w_j / s^2 times as fast. The momentum is a
    mean of gradients; new neurons, with a weight of zero, stay as they are.

    Args:
        result: of a split; its model and its optimizer's state are changed.
        weights: {group: (new width,)} the output weights w_j.
    """
    parameters = dict(result.model.named_parameters())
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    buffers = dict(zip(parameters, _momenta(result.optimizer_state, len(parameters)), strict=True))
    for group in result.graph.splittable_groups:
        w = weights[group.name].abs()
        factors = torch.where(w > 0, w, 1).sqrt().to(next(iter(parameters.values())))
        norm = result.model.get_submodule(_norm_of(group).name)
        of_theta = {name: parameters[name].data for name in group.parameters}
        scatter(group, pack(group, parameters) * factors[:, None], of_theta, shapes)
        momenta = {name: buffers[name] for name in group.parameters}
        if all(momentum is not None for momentum in momenta.values()):
            scatter(group, pack(group, momenta) / factors[:, None], momenta, shapes)
        old = (norm.running_var + norm.eps).sqrt()
        norm.running_mean *= factors
        norm.running_var *= factors**2
        norm.weight *= (norm.running_var + norm.eps).sqrt() / (factors * old)  # eps is the only thing to make up for


def _norm_of(group: ChannelGroup) -> Layer:
    """Return the batch norm that reads the neurons of a group as they come out of its only producer."""
    assert len(group.producers) == 1, group.name
    assert group.followers[0].kind == "batch_norm", group.name
    return group.followers[0]


def _momenta(state: dict[str, Any] | None, number: int) -> list[Tensor | None]:
    held = {} if state is None else state["state"]
    return [held.get(place, {}).get("momentum_buffer") for place in range(number)]


def unequal(
    plan: s3d.GrowthPlan, spectrum: Mapping[str, s3d.Spectrum], units: Mapping[str, Tensor] | None, ratio: float
) -> s3d.GrowthPlan:
    """Return a plan whose positive splits in two have output weights in a ratio <= 1, instead of equal ones.

    With the weights r / (1 + r) and 1 / (1 + r) the copies go to v and -r v, so that they still balance; the gain is
    r lambda_min instead of lambda_min.

    Args:
        plan: of splits.
        spectrum: that it comes from.
        units: {group: (width,)} |theta|, of a relative plan.
        ratio: r.
    """
    weights, displacements, gain = {}, {}, plan.gain
    for name, copies in plan.copies.items():
        neuron = torch.arange(len(copies)).repeat_interleave(copies)
        halves = (copies[neuron] == 2) & (plan.weights[name] == 0.5)
        second = halves & second_copies(copies)
        parts = torch.where(second, 1 / (1 + ratio), ratio / (1 + ratio))
        weights[name] = torch.where(halves, parts.to(plan.weights[name]), plan.weights[name])
        displacements[name] = plan.displacements[name] * torch.where(second, ratio, 1.0)[:, None]
        lambda_min = spectrum[name].lambda_min if units is None else spectrum[name].lambda_min * units[name] ** 2
        gain += (ratio - 1) * float(lambda_min[neuron[second]].sum())
    return replace(plan, weights=weights, displacements=displacements, gain=gain)
