"""Slow, obvious oracles. They share no code with the package: of a channel graph they read the names of layers only."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from nni_s3d import ChannelGraph, ChannelGroup

# -- splitting matrices --------------------------------------------------------------------------------------------


def bump(x: Tensor, beta: float) -> Tensor:
    """Return 0, with first derivative 0 and the second derivative of softplus with sharpness beta."""
    at = x.detach()
    return (
        F.softplus(x, beta, threshold=1e9) - F.softplus(at, beta, threshold=1e9) - torch.sigmoid(beta * at) * (x - at)
    )


class Softened(nn.Module):
    """A piecewise-linear activation that keeps its value and slope, with bumps at its kinks."""

    def __init__(self, activation: nn.Module, beta: float) -> None:
        super().__init__()
        self.activation, self.beta = copy.deepcopy(activation), beta
        if hasattr(activation, "inplace"):
            self.activation.inplace = False

    def forward(self, x: Tensor) -> Tensor:
        at, y = self.activation, self.activation(x)
        if isinstance(at, nn.ReLU):
            return y + bump(x, self.beta)
        if isinstance(at, nn.LeakyReLU):
            return y + (1 - at.negative_slope) * bump(x, self.beta)
        if isinstance(at, nn.PReLU):
            slope = at.weight.reshape(-1, *(1,) * (x.dim() - 2))
            return y + (1 - slope) * bump(x, self.beta)
        if isinstance(at, nn.RReLU):
            return y + (1 - (at.lower + at.upper) / 2) * bump(x, self.beta)
        if isinstance(at, nn.Softshrink):
            return y + bump(x - at.lambd, self.beta) - bump(x + at.lambd, self.beta)
        if isinstance(at, nn.Threshold):
            return y + bump(x - at.threshold, self.beta)
        if isinstance(at, nn.Hardsigmoid):
            y = (x + 3).clamp(0, 6) / 6  # torch differentiates its own only once
            return y + (bump(x + 3, self.beta) - bump(x - 3, self.beta)) / 6
        if isinstance(at, nn.Hardswish):
            return y + x * (bump(x + 3, self.beta) - bump(x - 3, self.beta)) / 6
        assert isinstance(at, nn.Hardtanh)  # and its subclass ReLU6
        return y + bump(x - at.min_val, self.beta) - bump(x - at.max_val, self.beta)


KINKED = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.RReLU,
    nn.PReLU,
    nn.Softshrink,
    nn.Threshold,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,
)


def softened(model: nn.Module, beta: float = 3.0) -> nn.Module:
    """Return a copy of the model with all its piecewise-linear activation modules softened."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, KINKED) and not isinstance(module, Softened):
                setattr(module, name, Softened(child, beta))
    return model


def theta(model: nn.Module, group: ChannelGroup) -> Tensor:
    """Return (width, d): the rows of all producers, weights first, then biases."""
    producers = [model.get_submodule(layer.name) for layer in group.producers]
    biases = [p.bias for p in producers if p.bias is not None]
    return torch.cat([t.flatten(1) if t.dim() > 1 else t[:, None] for t in [p.weight for p in producers] + biases], 1)


def twofold_loss(
    model: nn.Module, group: ChannelGroup, batch: tuple[Tensor, Tensor], loss_fn: Callable, delta: Tensor
) -> Tensor:
    """Return the loss after every neuron became two copies theta +- delta, (width, d), with weights 1/2."""
    width, model = group.width, copy.deepcopy(model)
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())

    def twice(tensor: Tensor, dim: int) -> Tensor:
        """Double each of `width` blocks along a dimension in place."""
        shape = tensor.shape
        blocks = tensor.reshape(*shape[:dim], width, -1, *shape[dim + 1 :]).repeat_interleave(2, dim)
        return blocks.reshape(*shape[:dim], 2 * shape[dim], *shape[dim + 1 :])

    sign = torch.tensor([1.0, -1.0], dtype=delta.dtype).repeat(width)
    moves = delta.repeat_interleave(2, 0) * sign[:, None]
    producers = [layer.name for layer in group.producers]
    names = [f"{p}.weight" for p in producers] + [f"{p}.bias" for p in producers if f"{p}.bias" in tensors]
    for name, move in zip(names, moves.split([tensors[n][0].numel() for n in names], 1), strict=True):
        tensors[name] = twice(tensors[name], 0)
        tensors[name] = tensors[name] + move.reshape(tensors[name].shape)
    for layer in group.followers:
        module = model.get_submodule(layer.name)
        own = [f"{layer.name}.{n}" for n, t in (*module.named_parameters(), *module.named_buffers()) if t.dim()]
        tensors |= {name: twice(tensors[name], 0) for name in own}
        if hasattr(module, "groups"):
            module.groups *= 2
        if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
            module.normalized_shape = (2 * width,)
    for layer in group.consumers:
        tensors[f"{layer.name}.weight"] = twice(tensors[f"{layer.name}.weight"], 1) / 2
    return loss_fn(functional_call(model, tensors, (batch[0],)), batch[1])


def hessian(
    model: nn.Module, group: ChannelGroup, batch: tuple[Tensor, Tensor], loss_fn: Callable, beta: float = 3.0
) -> Tensor:
    """Return (width, d, width, d): the Hessian of the loss of the twofold network at delta = 0.

    Its blocks (i, :, i, :) are the splitting matrices, since copies with weights 1/2 change the loss by
    epsilon^2 / 2 * delta' S delta; its other blocks are 0, since splits of different neurons add up.
    """
    soft = softened(model, beta)
    start = torch.zeros_like(theta(model, group))
    return torch.autograd.functional.hessian(
        lambda delta: twofold_loss(soft, group, batch, loss_fn, delta), start, vectorize=True
    )


def splitting_matrices(
    model: nn.Module, group: ChannelGroup, batch: tuple[Tensor, Tensor], loss_fn: Callable, beta: float = 3.0
) -> Tensor:
    """Return (width, d, d): the diagonal blocks of `hessian`."""
    return torch.einsum("iaib->iab", hessian(model, group, batch, loss_fn, beta))


# -- schemes ---------------------------------------------------------------------------------------------------------


def best_gain(S: np.ndarray, copies: int, c: float, starts: int = 12, seed: int = 0) -> float:
    """Minimise eq. (6) over weights and displacements, from random starts for every pattern of signs."""
    rng = np.random.default_rng(seed)
    return min(
        _local_minimum(S, np.sign(np.arange(copies) + 0.5 - negative), c, rng)
        for negative in range(copies if c > 1 else 1)
        for _ in range(starts)
    )


def _local_minimum(S: np.ndarray, signs: np.ndarray, c: float, rng: np.random.Generator) -> float:
    """Run SLSQP once; the signs of the weights are given, so that sum |w| <= c is linear."""
    m, d = len(signs), len(S)

    def parts(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return x[:m], x[m:].reshape(m, d)

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        w, delta = parts(x)
        image = delta @ S
        forms = (image * delta).sum(1)
        return float(w @ forms), np.concatenate([forms, (2 * w[:, None] * image).ravel()])

    def mean_slope(x: np.ndarray) -> np.ndarray:
        w, delta = parts(x)
        return np.hstack([delta.T, np.kron(w, np.eye(d))])

    def norm_slope(x: np.ndarray) -> np.ndarray:
        delta = parts(x)[1]
        out = np.zeros((m, m + m * d))
        for j in range(m):
            out[j, m + j * d : m + (j + 1) * d] = -2 * delta[j]
        return out

    flat = np.zeros(m * d)
    constraints = [
        {"type": "eq", "fun": lambda x: [x[:m].sum() - 1], "jac": lambda x: np.concatenate([np.ones(m), flat])[None]},
        {"type": "eq", "fun": lambda x: parts(x)[0] @ parts(x)[1], "jac": mean_slope},
        {"type": "ineq", "fun": lambda x: [c - signs @ x[:m]], "jac": lambda x: np.concatenate([-signs, flat])[None]},
        {"type": "ineq", "fun": lambda x: 1 - (parts(x)[1] ** 2).sum(1), "jac": norm_slope},
    ]
    bounds = [(0, c) if s > 0 else (-c, 0) for s in signs] + [(-1, 1)] * (m * d)
    start = np.concatenate([signs * rng.uniform(0, 1, m), rng.uniform(-1, 1, m * d)])
    found = minimize(value, start, jac=True, bounds=bounds, constraints=constraints, method="SLSQP")
    w, delta = parts(found.x)
    violations = [abs(w.sum() - 1), abs(w).sum() - c, np.abs(w @ delta).max(), (delta**2).sum(1).max() - 1]
    return float(found.fun) if max(violations) < 1e-6 else np.inf


# -- selection -------------------------------------------------------------------------------------------------------


def best_choice(
    gains: Sequence[Sequence[float]], cost: Callable[[tuple[int, ...]], float], budget: float
) -> tuple[float, tuple[int, ...]]:
    """Try all numbers of copies; `gains[i][m - 1]` is what neuron i gains with m copies."""
    return min(
        (sum(row[m - 1] for row, m in zip(gains, copies, strict=True)), copies)
        for copies in itertools.product(*(range(1, len(row) + 1) for row in gains))
        if cost(copies) <= budget
    )


# -- cost ------------------------------------------------------------------------------------------------------------


def macs(model: nn.Module, inputs: Tensor) -> int:
    """Count the multiplications of convolutions and linear layers per sample, as hooks see them run."""
    found = []

    def hook(module: nn.Module, _: object, out: Tensor) -> None:
        per_output = module.weight[0].numel()
        found.append(out.numel() * per_output // len(inputs))

    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))]
    handles = [layer.register_forward_hook(hook) for layer in layers]
    model(inputs)
    for handle in handles:
        handle.remove()
    return sum(found)


def params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# -- state -----------------------------------------------------------------------------------------------------------


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Fail unless parameters, buffers, gradients, modes, hooks and the random state stay as they are."""

    def state() -> tuple:
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        values = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        grads = {name: p.grad if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
        modes = [module.training for module in model.modules()]
        hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()]
        same = {name: (id(tensor), tensor.requires_grad) for name, tensor in tensors.items()}
        return values | {f"grad of {n}": g for n, g in grads.items()}, (modes, hooks, same), torch.get_rng_state()

    tensors, rest, random = state()
    try:
        yield
    finally:
        tensors_after, rest_after, random_after = state()
        assert rest_after == rest
        assert torch.equal(random_after, random)
        assert tensors_after.keys() == tensors.keys()
        for name, tensor in tensors.items():
            after = tensors_after[name]
            assert (after is None) == (tensor is None), name
            assert tensor is None or torch.equal(after, tensor), name


def plan_of_random_copies(graph: ChannelGraph, choices: Sequence[int], seed: int) -> dict[str, Tensor]:
    """Return random numbers of copies for every splittable group, with at least one neuron split in each."""
    generator = torch.Generator().manual_seed(seed)
    options = torch.tensor(choices)
    copies = {}
    for group in graph.splittable_groups:
        number = options[torch.randint(len(choices), (group.width,), generator=generator)]
        number[torch.randint(group.width, (1,), generator=generator)] = max(choices)
        copies[group.name] = number
    return copies


# -- operators -------------------------------------------------------------------------------------------------------


class DenseOperator:
    """Matrices that are known: {name: (n, d, d)}, of a single fold."""

    samples = 1

    def __init__(self, matrices: dict[str, Tensor], parts: int = 1) -> None:
        self.matrices, first = matrices, next(iter(matrices.values()))
        self.shapes = {name: (S.shape[0], S.shape[1]) for name, S in matrices.items()}
        self.dtype, self.device = first.dtype, first.device
        self.parts, self.folds = [self] * parts, [self]
        self.products = 0

    def matvec(self, vectors: dict[str, Tensor]) -> dict[str, Tensor]:
        self.products += 1
        return {name: torch.einsum("nij,nj->ni", self.matrices[name], v) for name, v in vectors.items()}

    def dense(self, name: str) -> Tensor:
        return self.matrices[name].clone()


def published_rayleigh(S: Tensor, batches: int, epochs: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Return (eigenvalues, eigenvectors) at the minimum and the maximum, as the published code finds them.

    Vectors start uniform in (-0.1, 0.1); RMSprop with momentum 0.9 and smoothing 0.9 follows the gradient of the
    Rayleigh quotient at a learning rate of 1e-3, divided by 5 every two epochs, normalising after every step;
    eigenvalues and eigenvectors are means over the last epoch.
    """
    generator = torch.Generator().manual_seed(seed)
    starts = [torch.rand(S.shape[:2], dtype=S.dtype, generator=generator) * 0.2 - 0.1 for _ in range(2)]
    ends = []
    for sign, v in zip((1, -1), starts, strict=True):
        v.requires_grad_()
        optimizer = torch.optim.RMSprop([v], lr=1e-3, momentum=0.9, alpha=0.9)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.2)
        for _ in range(epochs):
            values, vectors = [], []
            for _ in range(batches):
                quotient = torch.einsum("ni,nij,nj->n", v, S, v) / (v * v).sum(1)
                values.append(quotient.detach())
                vectors.append(F.normalize(v.detach(), dim=1))
                optimizer.zero_grad()
                (sign * quotient).sum().backward()
                optimizer.step()
                v.data = F.normalize(v.data, dim=1)
            schedule.step()
        ends.append((torch.stack(values).mean(0), F.normalize(torch.stack(vectors).mean(0), dim=1)))
    return ends
