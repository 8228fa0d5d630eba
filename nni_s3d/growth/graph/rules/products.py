"""Products of activations, and recurrent layers: what of the channels passes them, and their MACs.

A matrix product with a weight of the model is a linear layer, see `rewriting`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nni_s3d.growth.graph.functions import Kind, functions
from nni_s3d.growth.graph.labels import growing_dim
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.rule_table import TracedCall, rule_table
from nni_s3d.growth.modules import tensors

RULES, rule = rule_table()
LAYERS = "let both come from layers of their own, and be multiplied channel by channel"


@rule(*functions(Kind.MATRIX_PRODUCT), reads=("input", "other"))
def _matmul(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, other: Tensor) -> Any:
    """A product whose left matrix mixes the positions of the right one, or the other way round."""
    first, second = (other, input) if call.name == "rmatmul" else (input, other)
    macs = out.numel() * first.shape[-1]
    if first.dim() < 2 or second.dim() < 2:
        if first.dim() == 1:
            notes.sample_sizes.note_alone(first)
        if not (notes.own.behind(first) and notes.own.behind(second)):  # else a norm of a weight, say
            notes.note_products(call.name, macs)
        return notes.refuse_inputs(call.name, (first, second))
    batch = "".join(map(chr, range(ord("0"), ord("0") + max(first.dim(), second.dim()) - 2)))
    operands = (
        (first, batch[len(batch) + 2 - first.dim() :] + "ij"),
        (second, batch[len(batch) + 2 - second.dim() :] + "jk"),
    )
    passed, counted = _passed(notes, call.name, operands, batch + "ik")
    notes.note_products(call.name, macs, counted)
    return passed


@rule(*functions(Kind.SUM_OF_PRODUCTS), reads=("operands",), counts=False)
def _einsum(notes: Notes, call: TracedCall, out: Tensor, equation: Any, *operands: Any) -> Any:
    factors, passed, counted = operands[0] if len(operands) == 1 else operands, None, None
    if isinstance(equation, str) and len(factors) == 2 and equation.count("->") == 1 and "." not in equation:
        inputs, _, result = equation.replace(" ", "").partition("->")
        operands = tuple(zip(factors, inputs.split(","), strict=True))
        passed, counted = _passed(notes, call.name, operands, result)
    else:
        notes.refuse_inputs(call.name, operands)
    if call.macs:
        notes.note_products(call.name, call.macs, counted)
    return passed


def _passed(
    notes: Notes, name: str, operands: Sequence[tuple[Tensor, str]], result: str
) -> tuple[Tensor | None, Tensor | None]:
    """Hand the channels of one of two factors on, if the other one has the same factors for all of them.

    Args:
        notes: of the trace.
        name: of the function.
        operands: the two factors, and a letter for each of their dimensions.
        result: a letter for each dimension of the result; the product is summed over the letters that are not in it.

    Returns:
        The labels of the result, and those that multiplications are counted by.
    """
    for x, letters in operands:
        labels = notes.labels(x)
        shared = [
            dim for dim, letter in enumerate(letters) if letter in result and all(letter in of for _, of in operands)
        ]
        if labels is not None and any(labels.shape[dim] > 1 for dim in shared):
            notes.products.in_heads.append(labels)
    summed = _summed_channels(notes, operands, result)
    if summed is not None:
        factors, reading = (operands[1][0], operands[0][0]), notes.averages.note_read()
        notes.products.note(name, factors, summed, divides=False, reading=reading, reason="")
        return None, summed
    passed = _handed_on(notes, name, operands, result)
    return passed, passed


def _summed_channels(notes: Notes, operands: Sequence[tuple[Tensor, str]], result: str) -> Tensor | None:
    """Return the labels (..., d) of the channels of two factors over which a product sums, None if it does not."""
    labels = [notes.labels(x) for x, _ in operands]
    letters = [of_factor for _, of_factor in operands]
    along = [_grows_along(notes, *operand) for operand in operands]
    if along[0] != along[1] or along[0] in (*result, "-") or operands[0][0] is operands[1][0]:
        return None
    shared = "".join(letter for letter in letters[0] if letter in letters[1] and letter != along[0]) + along[0]
    moved = []
    for of_factor, one in zip(letters, labels, strict=True):
        assert one is not None
        inside = [of_factor.index(letter) for letter in shared]
        beside = [dim for dim in range(one.dim()) if dim not in inside]
        if any(one.shape[dim] > 1 for dim in beside) or bool((one < 0).any()) or len(set(of_factor)) < len(of_factor):
            return None
        moved.append(one.permute(inside + beside).flatten(len(inside) - 1))
    return join_all(notes, *moved)


def join_all(notes: Notes, first: Tensor, second: Tensor) -> Tensor:
    """Make the channels one that meet where two labels are laid over each other, and return these."""
    notes.join(first, second)
    return torch.maximum(first, second)


def _handed_on(notes: Notes, name: str, operands: Sequence[tuple[Tensor, str]], result: str) -> Tensor | None:
    labelled = [(x, letters) for x, letters in operands if notes.labels(x) is not None]
    if len(labelled) > 1:
        labelled = _of_two(notes, name, labelled, result)
    if not labelled:
        return None
    ((x, letters),) = labelled
    ((other, others),) = ((y, of_other) for y, of_other in operands if y is not x)
    labels = notes.labels(x)
    assert labels is not None
    dim = growing_dim(labels)
    if labels.numel() == 1 or (dim is not None and letters[dim] not in result):
        reason = f"{name} sums over its channels with factors that are no parameter of the model"
        return notes.refuse_inputs(name, (x,), reason, "keep the factors in a parameter")
    own = dict(zip(others, other.shape, strict=True))
    if len(set(letters)) < len(letters) or (dim is not None and own.get(letters[dim], 1) > 1):
        return notes.refuse_inputs(name, (x,))
    summed = _summed(letters, result)  # over parts, such as experts, whose channels become one
    for place in summed:
        if labels.shape[place] > 1:
            notes.join(labels.narrow(place, 0, 1), labels)
            labels = labels.narrow(place, 0, 1)
            notes.in_order = False
    moved = labels.permute([letters.index(letter) for letter in result if letter in letters] + summed)
    shape = iter(moved.shape)
    return moved.reshape([next(shape) if letter in letters else 1 for letter in result])


def _of_two(notes: Notes, name: str, operands: Sequence[tuple[Tensor, str]], result: str) -> list[tuple[Tensor, str]]:
    """Return the one of two factors with channels that may hand them on, and refuse the channels of the other one."""
    passing = [(x, letters) for x, letters in operands if _grows_along(notes, x, letters) in result]
    if not passing or operands[0][0] is operands[1][0]:
        met = f"{name} multiplies its channels with those of another tensor, as queries with keys"
        notes.refuse_inputs(name, [x for x, _ in operands], met, LAYERS)
        return []
    # Of an outer product the wider one passes, and of two equal ones the second, such as values behind keys.
    kept = max(passing[::-1], key=lambda operand: operand[0].shape[operand[1].index(_grows_along(notes, *operand))])
    others = [x for x, _ in operands if x is not kept[0]]
    notes.refuse_inputs(name, others, f"{name} multiplies its channels with those of another tensor", LAYERS)
    return [kept]


def _grows_along(notes: Notes, x: Tensor, letters: str) -> str:
    """Return the letter of the dimension along which the channels of a factor get more; another one if none does."""
    labels = notes.labels(x)
    dim = None if labels is None else growing_dim(labels)
    return "-" if dim is None else letters[dim]


def _summed(letters: str, result: str) -> list[int]:
    return [place for place, letter in enumerate(letters) if letter not in result]


@rule(*functions(Kind.AFFINE_MATRIX_PRODUCT), reads=("input", "first", "second"))
def _addmm(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, first: Tensor, second: Tensor, **_: Any) -> Any:
    notes.note_products(call.name, out.numel() * first.shape[-1])
    return notes.refuse_inputs(call.name, (input, first, second))


@rule(*functions(Kind.TORCHSCRIPT), reads=("args", "kwargs"))
def _torchscript(notes: Notes, call: TracedCall, out: Any, script: Any, *args: Any, **kwargs: Any) -> Any:
    where = f"the TorchScript {getattr(script, 'name', 'module')}, which the trace cannot see"
    notes.refuse_inputs(call.name, (args, kwargs), f"its channels enter {where}", "call its Python code")
    return (None,) * len(tensors(out))


@rule(*functions(Kind.RECURRENT), reads=("input",))
def _recurrent(notes: Notes, call: TracedCall, out: Any, input: Tensor, *args: Any, **_: Any) -> Any:
    """Every matrix is applied once to every element of every sequence; the kernels are opaque to a counter."""
    packed = isinstance(args[0], Tensor) and not args[0].is_floating_point()  # then it is the sizes of the batches
    matrices = [weight for weight in args[2 if packed else 1] if weight.dim() == 2]
    if not packed and input.shape[0 if args[-1] else 1] == 1:  # also what was given as a sequence without samples
        notes.sample_sizes.note_alone(input.transpose(0, 1) if args[-1] else input)
    positions = input.numel() // input.shape[-1]
    notes.note_products(call.name, positions * sum(matrix.numel() for matrix in matrices))
    return notes.refuse_inputs(call.name, (input, args), instead="put a linear layer before it, whose input grows")
