"""Guided back-propagation (Springenberg et al., 2015): the gradient that ReLUs pass only where it is positive."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _only_positive(layer: nn.Module, of_inputs: Any, of_outputs: Any) -> tuple[Tensor]:
    return (of_inputs[0].clamp(min=0),)


class Seen:
    """What the filters of a network's last convolution see in an image.

    Args:
        model: the network. It is copied, since ReLUs are to let only positive gradients through.
        image: (1, channels, height, width).
    """

    def __init__(self, model: nn.Module, image: Tensor) -> None:
        model = deepcopy(model)
        layers = [layer for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.BatchNorm2d, nn.ReLU))]
        last = max(i for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d))
        self.layer: Any = layers[last]
        self.after: list[Any] = layers[last + 1 :]
        for layer in (layer for layer in layers if isinstance(layer, nn.ReLU)):
            layer.inplace = False
            layer.register_full_backward_hook(_only_positive)
        self.image = image.clone().requires_grad_()
        kept: list[Tensor] = []
        hook = self.layer.register_forward_pre_hook(lambda layer, inputs: kept.append(inputs[0]))
        model(self.image)
        hook.remove()
        self.below = kept[0]  # what the convolution reads

    def picture(self, number: int, theta: Tensor | None = None) -> Tensor:
        """Return the guided gradient (channels, height, width) of a filter's map, or of theta (d,) in its place."""
        weight, bias = self.layer.weight[number], self.layer.bias[number]
        if theta is not None:
            weight, bias = theta[:-1].reshape(weight.shape), theta[-1]
        found = F.conv2d(self.below, weight[None], bias[None], self.layer.stride, self.layer.padding)
        for layer in self.after:
            if isinstance(layer, nn.BatchNorm2d):
                one = slice(number, number + 1)
                of_layer: tuple[Any, ...] = (layer.running_mean, layer.running_var, layer.weight, layer.bias)
                mean, variance, scale, shift = (part[one] for part in of_layer)
                found = F.batch_norm(found, mean, variance, scale, shift, eps=layer.eps)
            elif isinstance(layer, nn.ReLU):
                found = layer(found)
                break
        (gradient,) = torch.autograd.grad(found.sum(), self.image, retain_graph=True)
        return gradient[0]

    def theta(self, number: int) -> Tensor:
        """Return weights and bias of a filter, (d,)."""
        return torch.cat([self.layer.weight[number].flatten(), self.layer.bias[number, None]]).detach()
