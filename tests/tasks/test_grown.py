import copy
import io
import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import nni_s3d as s3d
from nni_s3d.growth.graph.equal_parts import with_equal_parts
from tests import reference
from tests.cases import BY_NAME, measured
from tests.wide import WIDE

every_case = pytest.mark.parametrize("case", [*WIDE, BY_NAME["separable-silu"], BY_NAME["prelu"]], ids=lambda c: c.name)


def grown(case, epsilon=0.01, seed=2):
    run = measured(case)
    copies = with_equal_parts(run.graph, reference.plan_of_random_copies(run.graph, (1, 2, 3), seed))
    return s3d.split(run.model, run.graph, s3d.plan_from_copies(run.graph, copies, run.spectrum, c=2.0), epsilon)


@every_case
def test_a_grown_network_is_rebuilt_from_its_constructor(case, tmp_path):
    model = grown(case).model
    s3d.save_grown(model, tmp_path / "grown.safetensors")
    again = s3d.load_grown(case.model, tmp_path / "grown.safetensors")
    assert torch.equal(again(case.inputs()), model(case.inputs()))
    assert repr(again) == repr(model)
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in model.parameters()]


def test_tied_parameters_stay_tied(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Linear(4, 4) for _ in range(4))
            self.d.weight = self.c.weight

        def forward(self, x):
            return self.d(torch.tanh(self.c(torch.softmax(self.b(torch.tanh(self.a(x))), -1))))

    model, x = Tied(), torch.randn(3, 4)
    graph = s3d.trace(model, x)
    assert graph.widths == {"a": 4}
    bigger = s3d.split(model, graph, s3d.plan_from_copies(graph, {"a": torch.tensor([2, 1, 1, 3])})).model
    s3d.save_grown(bigger, tmp_path / "x")
    again = s3d.load_grown(Tied, tmp_path / "x")
    assert again.c.weight is again.d.weight
    assert torch.equal(again(x), bigger(x))


def test_files_of_other_networks_are_refused(tmp_path):
    s3d.save_grown(nn.Sequential(nn.Linear(4, 3)), tmp_path / "x")
    with pytest.raises(s3d.ModelError, match=r"0\.bias: expected it in the network that was built too, got none"):
        s3d.load_grown(lambda: nn.Sequential(nn.Linear(4, 3, bias=False)), tmp_path / "x")
    with pytest.raises(s3d.ModelError, match=r"1\.weight: expected it in the file too, got none"):
        s3d.load_grown(lambda: nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), tmp_path / "x")
    with pytest.raises(s3d.ModelError, match=r"0\.weight: expected 3 dimensions, got 2"):
        s3d.load_grown(lambda: nn.Sequential(nn.Conv1d(4, 3, 1)), tmp_path / "x")


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    with pytest.raises(s3d.StoreError, match="nowhere/x: expected a file that can be written"):
        s3d.save_grown(torch.nn.Linear(1, 1), tmp_path / "nowhere" / "x")


def test_what_is_no_such_file_is_refused(tmp_path):
    (tmp_path / "text").write_text("no tensors")
    save_file({"a": torch.ones(1)}, tmp_path / "plain")
    for name in ("nothing", "text", "plain"):
        with pytest.raises(s3d.StoreError, match=f"{name}: expected a file that save_grown wrote"):
            s3d.load_grown(lambda: nn.Linear(1, 1), tmp_path / name)


def test_only_sizes_are_set_from_a_file(tmp_path):
    sizes = {"": {"in_features": 1, "out_features": 1, "forward": 3, "training": 0}}
    save_file({"weight": torch.ones(1, 1)}, tmp_path / "x", metadata={"nni_s3d.sizes": json.dumps(sizes)})
    model = s3d.load_grown(lambda: nn.Linear(1, 1, bias=False), tmp_path / "x")
    assert callable(model.forward)
    assert model.training is True


class Cut(nn.Module):
    """Holds the widths of what it cuts in attributes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.widths, self.first, self.kinds = [2, 4], 3, (3, "tanh", (5,))
        self.a, self.b, self.c = nn.Linear(3, 6), nn.Linear(6, 9), nn.Linear(9, 2)

    def forward(self, x):
        first, second = self.a(x).split(self.widths, 1)
        x = self.b(torch.cat([first.tanh(), second], 1))
        return self.c(torch.cat([x[:, : self.first].tanh(), x[:, self.first :]], 1))


def test_attributes_of_modules_are_kept(tmp_path):
    model, x = Cut(), torch.randn(5, 3)
    graph = s3d.trace(model, x)
    copies = {name: torch.full((width,), 2 + width % 2) for name, width in graph.widths.items()}
    result = s3d.split(model, graph, s3d.plan_from_copies(graph, copies))
    s3d.save_grown(result.model, tmp_path / "x")
    again = s3d.load_grown(Cut, tmp_path / "x")
    assert torch.equal(again(x), result.model(x))
    assert (again.widths, again.first, again.kinds) == ([4, 8], 9, (3, "tanh", (5,)))


@pytest.mark.parametrize(
    "saved", [{"widths": [1]}, {"widths": ["1", None]}, {"first": True}, {"kinds": "abc"}, {"a": 3}]
)
def test_integers_alone_are_set_from_a_file_and_where_there_are_integers(tmp_path, saved):
    tensors = {name: x.detach() for name, x in Cut().state_dict().items()}
    save_file(tensors, tmp_path / "x", metadata={"nni_s3d.sizes": json.dumps({"": saved})})
    model, fresh = s3d.load_grown(Cut, tmp_path / "x"), Cut()
    assert (model.widths, model.first, model.kinds) == (fresh.widths, fresh.first, fresh.kinds)
    assert isinstance(model.a, nn.Linear)


# -- a grown network is one like any other ---------------------------------------------------------------------------


@every_case
def test_it_prints_reloads_and_trains(case):
    run, result = measured(case), grown(case)
    for module in result.model.modules():  # what a layer says of itself is what its tensors are
        if isinstance(module, nn.Linear):
            assert module.weight.shape == (module.out_features, module.in_features)
    fresh = copy.deepcopy(result.model)
    buffer = io.BytesIO()
    torch.save(result.model.state_dict(), buffer)
    buffer.seek(0)
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    model, inputs, targets = fresh.eval(), case.inputs(), case.targets()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    losses = []
    for _ in range(5):
        loss = case.loss_fn(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert run.graph.widths != result.widths


@every_case
def test_it_exports(case):
    model, inputs = grown(case).model, case.inputs()
    program = torch.export.export(model, (inputs,))
    torch.testing.assert_close(program.module()(inputs), model(inputs))


@pytest.mark.parametrize("name", ["separable-silu", "conv-bn-relu"])
@pytest.mark.filterwarnings("ignore")
def test_it_is_scripted_and_becomes_onnx(name, tmp_path):
    pytest.importorskip("onnxscript", reason="onnxscript, of the extra test, is not installed")
    onnx = pytest.importorskip("onnx", reason="onnx, of the extra test, is not installed")
    case = BY_NAME[name]
    model, inputs = grown(case).model, case.inputs()
    torch.testing.assert_close(torch.jit.script(model)(inputs), model(inputs))
    torch.onnx.export(model, (inputs,), tmp_path / "grown.onnx", dynamo=True, verbose=False)
    shapes = {tuple(t.dims) for t in onnx.load(tmp_path / "grown.onnx").graph.initializer}
    assert tuple(model[0].weight.shape) in shapes


# -- training goes on ------------------------------------------------------------------------------------------------

OPTIMIZERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.01, amsgrad=True),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.01),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, lr=0.003, momentum=0.5, centered=True),
}


def groups(model):
    """Weight decay for matrices only, as training recipes do."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    return [{"params": matrices, "weight_decay": 1e-4}, {"params": [p for p in model.parameters() if p.dim() <= 1]}]


@every_case
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_schedule_and_average_go_on_without_a_jump(case, name):
    run, inputs, targets = measured(case), case.inputs(), case.targets()
    model = copy.deepcopy(run.model)
    optimizer = OPTIMIZERS[name](groups(model))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8), use_buffers=True)

    def step(model, optimizer, schedule, average):
        optimizer.zero_grad()
        case.loss_fn(model(inputs), targets).backward()
        optimizer.step()
        schedule.step()
        average.update_parameters(model)

    for _ in range(6):
        step(model, optimizer, schedule, average)
    graph = s3d.trace(model, inputs)
    copies = {group.name: torch.full((group.width,), 2) for group in graph.splittable_groups}
    op = s3d.SplittingOperator(model, graph, [(inputs, targets)], case.loss_fn)
    plan = s3d.plan_from_copies(graph, copies, s3d.spectrum(op), c=1.0)
    result = s3d.split(model, graph, plan, 1e-3, optimizer)
    new_optimizer = OPTIMIZERS[name](groups(result.model))
    new_optimizer.load_state_dict(result.optimizer_state)
    new_schedule = torch.optim.lr_scheduler.CosineAnnealingLR(new_optimizer, T_max=30)
    new_schedule.load_state_dict(schedule.state_dict())
    new_average = s3d.split_average(average, graph, plan, 1e-3)
    assert int(new_average.n_averaged) == int(average.n_averaged)
    torch.testing.assert_close(new_average(inputs), average(inputs), rtol=1e-4, atol=1e-4)
    assert new_optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]

    def loss(model):
        return float(case.loss_fn(model(inputs), targets).detach())

    before = loss(model)
    assert loss(result.model) == pytest.approx(before, abs=1e-4)
    for _ in range(3):
        step(model, optimizer, schedule, average)
        step(result.model, new_optimizer, new_schedule, new_average)
        assert new_schedule.get_last_lr() == schedule.get_last_lr()
    # It goes on as the network that was not split; with twice the neurons perhaps faster.
    assert loss(result.model) < before + 0.1 * abs(before - loss(model))
