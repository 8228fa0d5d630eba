"""A growth step on a GPU, held against the same step on the CPU in float64.

`NNI_S3D_TEST_DEVICE=cpu pytest tests/growth/test_gpu.py` runs these tests without one.
"""

import copy
import os
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.growth.curvature.batch_operator import RecomputedBatchOperator
from tests import reference
from tests.cases import BY_NAME, Case, all_cases, measured, smooth_cases

DEVICE = os.environ.get("NNI_S3D_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="torch.cuda is not available"),
]
both_dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}  # relative to the largest number of a tensor


@pytest.fixture(autouse=True)
def full_precision():
    """Keep float32 products out of TF32, which has 10 bits."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@dataclass(frozen=True)
class OnDevice:
    """One case on the device; shared, so nothing in it may be changed."""

    model: nn.Module
    graph: s3d.ChannelGraph
    batch: tuple[Tensor, Tensor]
    op: s3d.SplittingOperator
    spectrum: dict[str, s3d.Spectrum]


def batch_of(case: Case, dtype: torch.dtype, samples: int = 6) -> tuple[Tensor, Tensor]:
    x, y = case.batch(samples)
    return x.to(DEVICE, dtype), y.to(DEVICE)


@cache
def on_device(case: Case, dtype: torch.dtype) -> OnDevice:
    model, batch = case.model().to(DEVICE, dtype), batch_of(case, dtype)
    graph = s3d.trace(model, batch[0])
    op = s3d.SplittingOperator(model, graph, [batch], case.loss_fn)
    return OnDevice(model, graph, batch, op, s3d.spectrum(op, "exact"))


def assert_near(found: Tensor, expected: Tensor, tolerance: float, scale: float | None = None) -> None:
    """Compare with a result in float64 on the CPU; `scale` is the largest of its numbers unless it is given."""
    assert found.device.type == torch.device(DEVICE).type
    expected = expected.detach()
    scale = float(expected.abs().max()) if scale is None else scale
    torch.testing.assert_close(found.double().cpu(), expected, rtol=0, atol=tolerance * scale)


@torch.no_grad()
def loss_in_float64(case: Case, model: nn.Module) -> float:
    x, y = batch_of(case, torch.float64)
    return float(case.loss_fn(copy.deepcopy(model).double()(x), y))


@both_dtypes
@all_cases
def test_the_graph_is_the_cpus(case, dtype):
    assert str(on_device(case, dtype).graph) == str(measured(case).graph)


@both_dtypes
@all_cases
def test_products_are_the_cpus(case, dtype):
    op, expected = on_device(case, dtype).op, measured(case).op
    assert (op.dtype, op.device.type) == (dtype, torch.device(DEVICE).type)
    generator = torch.Generator().manual_seed(0)
    vectors = {name: torch.randn(shape, generator=generator).double() for name, shape in op.shapes.items()}
    products = op.matvec({name: v.to(DEVICE, dtype) for name, v in vectors.items()})
    for name, product in expected.matvec(vectors).items():
        assert products[name].dtype == dtype
        assert_near(products[name], product, TOLERANCE[dtype])


@both_dtypes
@all_cases
def test_the_plain_operator_is_the_cpus(case, dtype):
    run = on_device(case, dtype)
    plain = s3d.PlainSplittingOperator(run.model, run.graph, [run.batch], case.loss_fn)
    for name in plain.shapes:
        assert_near(plain.dense(name), measured(case).op.dense(name), TOLERANCE[dtype])


@both_dtypes
def test_scipy_sees_the_matrix_of_a_neuron(dtype):
    case = BY_NAME["conv-bn-silu"]
    matrix = on_device(case, dtype).op.to_scipy("0", 2)
    found = torch.as_tensor(matrix @ torch.eye(matrix.shape[0], dtype=dtype).numpy()).to(DEVICE)
    assert found.dtype == dtype
    assert_near(found, measured(case).op.dense("0")[2], TOLERANCE[dtype])


@both_dtypes
@all_cases
def test_exact_spectra_are_the_cpus(case, dtype):
    for name, expected in measured(case).spectrum.items():
        found, S = on_device(case, dtype).spectrum[name], measured(case).op.dense(name)
        radius = float(torch.maximum(expected.lambda_min.abs(), expected.lambda_max.abs()).max())
        assert_near(found.lambda_min, expected.lambda_min, TOLERANCE[dtype], radius)
        assert_near(found.lambda_max, expected.lambda_max, TOLERANCE[dtype], radius)
        for v, value in ((found.v_min, expected.lambda_min), (found.v_max, expected.lambda_max)):
            image = torch.einsum("nij,nj->ni", S, v.double().cpu())
            assert_near(v * value.to(v)[:, None], image, TOLERANCE[dtype], radius)


@pytest.mark.parametrize("name", ["conv-bn-silu", "separable-relu6", "residual-silu"])
def test_lanczos_finds_the_exact_ends(name):
    run = on_device(BY_NAME[name], torch.float64)
    found = s3d.spectrum(run.op, "lanczos", tolerance=1e-7)
    for group, exact in run.spectrum.items():
        assert found[group].converged.all()
        torch.testing.assert_close(found[group].lambda_min, exact.lambda_min, rtol=1e-4, atol=1e-8)
        torch.testing.assert_close(found[group].lambda_max, exact.lambda_max, rtol=1e-4, atol=1e-8)


@both_dtypes
@all_cases
def test_epsilon_zero_changes_no_output(case, dtype):
    run = on_device(case, dtype)
    copies = reference.plan_of_random_copies(run.graph, (1, 2, 3, 4), seed=0)
    plan = s3d.plan_from_copies(run.graph, copies, run.spectrum, c=2.0)
    grown = s3d.split(run.model, run.graph, plan, epsilon=0).model
    x = batch_of(case, dtype, 8)[0]
    assert_near(grown(x), run.model(x).double().cpu(), 1e-10 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize(
    ("dtype", "epsilon", "tolerance"), [(torch.float64, 1e-3, 1e-2), (torch.float32, 3e-2, 0.2)], ids=str
)
@smooth_cases
def test_the_change_of_the_loss_is_the_predicted_one(case, dtype, epsilon, tolerance):
    run = on_device(case, dtype)
    plan = s3d.select(run.spectrum, run.graph, s3d.TopFraction(1.0), copies=2, c=1.3)
    grown = s3d.split(run.model, run.graph, plan, epsilon).model
    change = loss_in_float64(case, grown) - loss_in_float64(case, run.model)
    assert plan.gain < 0
    # What rounding moves the parameters by changes the loss, too.
    rounding = 0.0 if dtype == torch.float64 else 1e-7
    assert change == pytest.approx(epsilon**2 / 2 * plan.gain, rel=tolerance, abs=rounding)


def trained_a_step(model: nn.Module, batch: tuple[Tensor, Tensor], kind: type) -> torch.optim.Optimizer:
    settings = {"lr": 0.01} | ({"momentum": 0.9} if kind is torch.optim.SGD else {})
    optimizer = kind(model.parameters(), **settings)
    F.cross_entropy(model(batch[0]), batch[1]).backward()
    optimizer.step()
    return optimizer


@both_dtypes
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
def test_the_state_of_the_optimizer_is_carried_over(kind, dtype):
    case = BY_NAME["conv-bn-silu"]
    states = []
    for device, precision in ((DEVICE, dtype), ("cpu", torch.float64)):
        model = case.model().to(device, precision)
        x, y = case.batch()
        batch = x.to(device, precision), y.to(device)
        graph = s3d.trace(model, batch[0])
        copies = reference.plan_of_random_copies(graph, (1, 2, 3), seed=1)
        optimizer = trained_a_step(model, batch, kind)
        result = s3d.split(model, graph, s3d.plan_from_copies(graph, copies), epsilon=0, optimizer=optimizer)
        states.append(result.optimizer_state["state"])
        renewed = kind(result.model.parameters(), **optimizer.defaults)
        renewed.load_state_dict(result.optimizer_state)
        F.cross_entropy(result.model(batch[0]), batch[1]).backward()
        renewed.step()
        assert all(p.isfinite().all() for p in result.model.parameters())
    found, expected = states
    assert found.keys() == expected.keys()
    for number, buffers in expected.items():
        for key, buffer in buffers.items():
            if isinstance(buffer, Tensor) and buffer.dim():
                assert_near(found[number][key], buffer, TOLERANCE[dtype])


def test_a_grown_network_trains_in_mixed_precision():
    case = BY_NAME["conv-bn-relu"]
    run = on_device(case, torch.float32)
    plan = s3d.select(run.spectrum, run.graph, s3d.TopFraction(0.5))
    model = s3d.split(run.model, run.graph, plan, epsilon=0.01).model.train()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.01), torch.amp.GradScaler(DEVICE, init_scale=128)
    x, y = run.batch
    half = torch.float16 if DEVICE == "cuda" else torch.bfloat16
    with torch.autocast(DEVICE, dtype=half):
        outputs = model(x)
        loss = F.cross_entropy(outputs, y)
    assert outputs.dtype == half
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert loss.isfinite()
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())
    assert any(not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    graph = s3d.trace(model.eval(), x)
    op = s3d.SplittingOperator(model, graph, [run.batch], case.loss_fn)
    assert all(spectrum.lambda_min.isfinite().all() for spectrum in s3d.spectrum(op).values())


def test_a_parametric_phase_in_mixed_precision_learns():
    from nni_s3d.tasks.data import Images, Loader
    from nni_s3d.tasks.recipe import Recipe
    from nni_s3d.tasks.training import evaluate, train

    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (60,), generator=generator)
    noise = torch.randint(0, 60, (60, 2, 6, 6), generator=generator)
    images = Images((noise + 60 * labels.reshape(-1, 1, 1, 1)).to(torch.uint8), labels)
    loader = Loader(images, (0.4, 0.4), (0.2, 0.2), batch_size=16, seed=0, device=DEVICE)
    model = BY_NAME["conv-bn-relu"].model().to(DEVICE, torch.float32)
    before = evaluate(model, loader)
    train(model, loader, Recipe(epochs=20, lr=0.05, amp=True, channels_last=True))
    after = evaluate(model, loader)
    assert after.loss < before.loss / 2


@both_dtypes
@pytest.mark.parametrize("name", ["conv-bn-silu", "residual-relu"])
def test_growth_runs(name, dtype):
    case = BY_NAME[name]
    model, batch = case.model().to(DEVICE, dtype), batch_of(case, dtype, 12)
    batches = [(batch[0][:6], batch[1][:6]), (batch[0][6:], batch[1][6:])]

    def train(network: nn.Module) -> float:
        trained_a_step(network, batch, torch.optim.SGD)
        return float(F.cross_entropy(network(batch[0]), batch[1]).detach())

    policy = s3d.Knapsack(growth=0.5, cost="macs")
    steps = list(s3d.grow(model, batch[0], train, batches, F.cross_entropy, policy, 2, epsilon=0.05))
    assert [step.step for step in steps] == [0, 1, 2]
    macs = [step.cost.macs for step in steps]
    assert macs[0] < macs[1] < macs[2]
    assert all(p.device.type == torch.device(DEVICE).type and p.dtype == dtype for p in steps[-1].model.parameters())
    assert all(decision.plan.held_out_gain is not None for decision in [step.decision for step in steps[:-1]])


@both_dtypes
@pytest.mark.parametrize("name", ["conv-bn-relu", "separable-silu", "residual-silu"])
def test_channels_last_changes_no_product(name, dtype):
    case = BY_NAME[name]
    model = case.model().to(DEVICE, dtype).to(memory_format=torch.channels_last)
    x, y = batch_of(case, dtype)
    x = x.to(memory_format=torch.channels_last)
    graph = s3d.trace(model, x)
    op = s3d.SplittingOperator(model, graph, [(x, y)], case.loss_fn)
    for group in op.shapes:
        assert_near(op.dense(group), measured(case).op.dense(group), TOLERANCE[dtype])
    plan = s3d.select(s3d.spectrum(op), graph, s3d.TopFraction(0.5))
    grown = s3d.split(model, graph, plan, epsilon=0).model
    assert_near(grown(x), model(x).double().cpu(), 1e-10 if dtype == torch.float64 else 1e-5)


@both_dtypes
def test_batches_that_are_linearised_again_change_no_product(dtype):
    case = BY_NAME["conv-bn-silu"]
    run = on_device(case, dtype)
    x, y = batch_of(case, dtype, 9)
    batches = [(x[:3], y[:3]), (x[3:6], y[3:6]), (x[6:], y[6:])]
    whole = s3d.SplittingOperator(run.model, run.graph, batches, case.loss_fn)
    room = whole.parts[0].nbytes + 1
    some = s3d.SplittingOperator(run.model, run.graph, batches, case.loss_fn, memory=room)
    assert [isinstance(part, RecomputedBatchOperator) for part in some.parts] == [False, True, True]
    for name in whole.shapes:
        assert_near(some.dense(name), whole.dense(name).double().cpu(), TOLERANCE[dtype])


@both_dtypes
@all_cases
def test_neurons_are_scored_removed_and_merged(case, dtype):
    run, here = on_device(case, dtype), measured(case)
    for kind in ("taylor", "l1"):
        expected = s3d.importance(here.model, here.graph, kind, [case.batch()], case.loss_fn)
        for name, scores in s3d.importance(run.model, run.graph, kind, [run.batch], case.loss_fn).items():
            scale = max(float(scores.max()), 1e-6)
            torch.testing.assert_close(scores, expected[name], rtol=0, atol=TOLERANCE[dtype] * scale)
    keep = {name: torch.arange(width) < max(2, width - 1) for name, width in run.graph.widths.items()}
    optimizer = torch.optim.Adam(run.model.parameters())
    pruned = s3d.remove(run.model, run.graph, keep, optimizer).model
    x = run.batch[0]
    assert_near(pruned(x), s3d.remove(here.model, here.graph, keep).model(x.double().cpu()), TOLERANCE[dtype])
    copies = {name: torch.full((width,), 2) for name, width in run.graph.widths.items()}
    grown = s3d.split(run.model, run.graph, s3d.plan_from_copies(run.graph, copies, c=2.0), epsilon=0)
    merged = s3d.merge(grown.model, grown.graph, torch.optim.Adam(grown.model.parameters()))
    assert merged.widths == run.graph.widths
    assert_near(merged.model(x), here.model(x.double().cpu()), TOLERANCE[dtype])
