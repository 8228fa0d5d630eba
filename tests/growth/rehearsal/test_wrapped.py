import copy

import pytest
import torch
from torch import nn
from torch.ao.quantization import get_default_qat_qconfig, prepare_qat, quantize_dynamic

import nni_s3d as s3d
from nni_s3d.growth.rehearsal import wrapped
from tests.wide import expect_reason


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double().eval()


def x() -> torch.Tensor:
    return torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def whole_compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


def compiled_in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


def compiled_inside(model: nn.Module) -> nn.Module:
    model[2].compile(backend="eager")
    return model


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (whole_compiled, "_orig_mod."),
        (compiled_in_place, ""),
        (compiled_inside, ""),
        (nn.DataParallel, "module."),
        (torch.optim.swa_utils.AveragedModel, "module."),
        (torch.fx.symbolic_trace, ""),
    ],
)
def test_wrappers_that_are_seen_through(wrap, prefix):
    """Names are those of the wrapper's own parameters, so that the graph goes with the model and its optimizer."""
    model, plain = wrap(net()), net()
    graph, expected = s3d.trace(model, x()), s3d.trace(plain, x())
    assert graph.widths == {prefix + name: width for name, width in expected.widths.items()}
    copies = {name: torch.full((width,), 2) for name, width in graph.widths.items()}
    optimizer = torch.optim.Adam(model.parameters())
    result = s3d.split(model, graph, s3d.plan_from_copies(graph, copies), epsilon=0, optimizer=optimizer)
    assert type(result.model) is type(model) or isinstance(model, torch.fx.GraphModule)
    torch.testing.assert_close(result.model(x()), plain(x()), rtol=0, atol=1e-12)

    def loss(out, target):
        return (out - target).square().mean()

    batches = [(x(), x()[:, :1])]
    ours = s3d.SplittingOperator(model, graph, batches, loss).dense(f"{prefix}0")
    theirs = s3d.SplittingOperator(plain, expected, batches, loss).dense("0")
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("make", [torch.jit.script, lambda model: torch.jit.trace(model, x())])
@pytest.mark.filterwarnings("ignore")
def test_torchscript_says_that_it_cannot_be_seen(make):
    graph = s3d.trace(make(net()), x())
    assert (
        str(graph).splitlines()[-1].startswith("the model is TorchScript, which the trace cannot see; trace the module")
    )
    assert not graph.widths


@pytest.fixture
def one_process(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_buckets_of_parameters_are_refused():
    model = nn.parallel.DistributedDataParallel(net())
    with pytest.raises(s3d.ModelError, match=r"inside DistributedDataParallel.*trace and split model\.module"):
        s3d.trace(model, x())
    assert s3d.trace(model.module, x()).widths == {"0": 3, "2": 4}


def test_copies_on_several_devices_are_refused():
    model = nn.DataParallel(net())
    model.device_ids = [0, 1]
    with pytest.raises(s3d.ModelError, match="inside DataParallel, which runs copies on 2 devices"):
        s3d.trace(model, x())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["dynamic", "aware"])
def test_quantised_weights_are_refused(kind):
    model = net().float()
    if kind == "dynamic":
        model = quantize_dynamic(model, {nn.Linear})
    else:
        model.qconfig = get_default_qat_qconfig("fbgemm")
        model = prepare_qat(copy.deepcopy(model).train())
        model(x().float())
    with pytest.raises(s3d.ModelError, match=r"expected weights that are parameters, got quantised ones \(0: Linear\)"):
        s3d.trace(model.eval(), x().float())


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_layer_in_a_network_is_named():
    model = net().float()
    model[2] = quantize_dynamic(nn.Sequential(model[2]), {nn.Linear})[0]
    graph = s3d.trace(model, x().float())
    expect_reason(graph["0"], "its channels enter linear_dynamic, which has no exact rule")
    wrapped.check_floats(model, graph)


def test_adapters_of_peft():
    peft = pytest.importorskip("peft")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(2, 6), nn.Linear(6, 6), nn.Linear(6, 1)

        def forward(self, x):
            return self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))

    torch.manual_seed(0)
    model = peft.get_peft_model(Net(), peft.LoraConfig(target_modules=["a", "b"], r=2)).double().eval()
    graph = s3d.trace(model, x())
    a, b = (graph[f"base_model.model.{name}.base_layer"] for name in "ab")
    assert [str(producer).split(".")[3] for producer in a.producers] == ["base_layer", "lora_B"]
    assert a.splittable
    assert b.splittable
    copies = {name: torch.full((width,), 2) for name, width in graph.widths.items()}
    grown = s3d.split(model, graph, s3d.plan_from_copies(graph, copies), epsilon=0).model
    torch.testing.assert_close(grown(x()), model(x()), rtol=0, atol=1e-12)
