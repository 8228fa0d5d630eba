import copy

import pytest
import torch
from torch import Tensor, nn

import nni_s3d as s3d
from tests.cases import BY_NAME, Case, measured, random_plan
from tests.reference import plan_of_random_copies
from tests.wide import WIDE

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.0, momentum=0.9),
    "sgd nesterov": lambda p: torch.optim.SGD(p, lr=0.0, momentum=0.9, nesterov=True),
    "sgd without momentum": lambda p: torch.optim.SGD(p, lr=0.0),
    "adam": lambda p: torch.optim.Adam(p, lr=0.0),
    "adam amsgrad": lambda p: torch.optim.Adam(p, lr=0.0, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.0),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.0),
    "rmsprop with momentum": lambda p: torch.optim.RMSprop(p, lr=0.0, momentum=0.9, eps=1e-14),
    "rmsprop centred": lambda p: torch.optim.RMSprop(p, lr=0.0, momentum=0.9, centered=True, eps=1e-14),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.0),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=0.0, eps=1e-18),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.0, eps=1e-18),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.0),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.0),
    "rprop": lambda p: torch.optim.Rprop(p, lr=1e-18, step_sizes=(0, 1e-18)),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.0),
    "adam, foreach, a tensor for lr": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.0), foreach=False),
    "adamw, fused": lambda p: torch.optim.AdamW(p, lr=0.0, fused=True),
}
REFUSED = {  # and what it keeps that cannot grow
    "adafactor": (lambda p: torch.optim.Adafactor(p), r"'row_var' of shape \(5, 1\), which nobody knows how to grow"),
    "lbfgs": (lambda p: torch.optim.LBFGS(p), "'d' of shape"),
    "lbfgs, of which the first parameter stays": (lambda p: torch.optim.LBFGS(list(p)[::-1]), "for 4.bias .* 'd' of"),
    "one for every block": (lambda p: Blocks(p, lambda x: x.new_zeros(3)), r"'blocks' of shape \(3,\)"),
    "lists": (lambda p: Blocks(p, lambda x: [x.new_zeros(2, 2)]), r"'blocks' of shape \(2, 2\)"),
    "an unknown name": (lambda p: Blocks(p, torch.zeros_like), "among .*, got 'blocks' for 0.weight"),
}


class Blocks(torch.optim.SGD):
    """Keeps something for every parameter beside its momentum."""

    def __init__(self, parameters, make):
        super().__init__(parameters, lr=0.1, momentum=0.9)
        self.make = make

    def step(self):
        super().step()
        for parameter in self.state:
            self.state[parameter]["blocks"] = self.make(parameter.detach())


def train(case: Case, model: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
    for seed in seeds:
        x, y = case.batch(seed=seed)
        optimizer.zero_grad()
        loss = case.loss_fn(model(x), y)
        loss.backward()
        optimizer.step(*([lambda loss=loss: loss] if isinstance(optimizer, torch.optim.LBFGS) else []))


def check_same_state(found: dict, expected: dict) -> None:
    assert found["param_groups"] == expected["param_groups"]
    assert found["state"].keys() == expected["state"].keys()
    for number, buffers in expected["state"].items():
        assert found["state"][number].keys() == buffers.keys()
        for key, value in buffers.items():
            torch.testing.assert_close(found["state"][number][key], value, rtol=1e-6, atol=1e-13, msg=f"{number} {key}")


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("name", ["mlp-tanh", "separable-silu", "residual-relu", "pool-flatten-leaky", "prelu"])
def test_copies_receive_what_they_would_have_gathered_had_they_been_there_all_along(name, kind):
    """With a learning rate of 0, split-then-train and train-then-split must give the same buffers."""
    case = BY_NAME[name]
    plan = random_plan(case, seed=2, c=3.0)
    parent, graph = case.model(), measured(case).graph
    child = s3d.split(parent, graph, plan, epsilon=0).model
    optimizers = [OPTIMIZERS[kind](model.parameters()) for model in (parent, child)]
    for model, optimizer in zip((parent, child), optimizers, strict=True):
        train(case, model, optimizer, range(3))
    carried = s3d.split(parent, graph, plan, epsilon=0, optimizer=optimizers[0]).optimizer_state
    check_same_state(carried, optimizers[1].state_dict())


HEADS = next(case for case in WIDE if case.name == "heads")


def copies_of_heads(graph: s3d.ChannelGraph) -> dict[str, Tensor]:
    """Return copies that leave heads equally large."""
    return s3d.with_equal_parts(graph, plan_of_random_copies(graph, (1, 2), seed=0))


# The biases of keys have no gradient behind a softmax, and some momenta are of steps, which rounding makes of them.
@pytest.mark.parametrize(
    "kind", [kind for kind in OPTIMIZERS if kind not in ("rmsprop with momentum", "rmsprop centred")]
)
def test_queries_and_keys_receive_what_they_would_have_gathered(kind):
    """Keys, or their norms, carry the weights of copies, and what makes up for a scale that depends on the width."""
    parent, graph = HEADS.model(), s3d.trace(HEADS.model(), HEADS.inputs())
    plan = s3d.plan_from_copies(graph, copies_of_heads(graph), c=3.0)
    child = s3d.split(parent, graph, plan, epsilon=0).model
    optimizers = [OPTIMIZERS[kind](model.parameters()) for model in (parent, child)]
    for model, optimizer in zip((parent, child), optimizers, strict=True):
        train(HEADS, model, optimizer, range(3))
    result = s3d.split(parent, graph, plan, epsilon=0, optimizer=optimizers[0])
    check_same_state(result.optimizer_state, optimizers[1].state_dict())
    merged = s3d.merge(child, result.graph, optimizers[1])
    torch.testing.assert_close(merged.model(HEADS.inputs()), parent(HEADS.inputs()), rtol=0, atol=1e-12)
    if kind != "asgd":  # whose averages are parameters
        check_same_state(merged.optimizer_state, optimizers[0].state_dict())


def test_one_more_step_with_carried_momentum_is_the_chain_rule():
    case = BY_NAME["mlp-tanh"]
    model, lr, mu = case.model(), 0.1, 0.9
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=mu)
    train(case, model, optimizer, range(2))
    number = {"0": torch.tensor([1, 2, 1, 3, 1]), "2": torch.tensor([4, 1, 1, 2])}
    graph = s3d.trace(model, case.inputs())
    plan = s3d.plan_from_copies(graph, number, c=2.0)
    result = s3d.split(model, graph, plan, epsilon=0, optimizer=optimizer)
    grown = copy.deepcopy(result.model)
    carried = torch.optim.SGD(grown.parameters(), lr=1.0)
    carried.load_state_dict(result.optimizer_state)
    train(case, grown, carried, range(2, 3))
    train(case, model, optimizer, range(2, 3))  # its buffers are now mu m + g

    a, b = result.index_map["0"], result.index_map["2"]
    u, v = plan.weights["0"], plan.weights["2"]
    m = {name: optimizer.state[p]["momentum_buffer"] for name, p in model.named_parameters()}
    expected = {
        "0.weight": u[:, None] * m["0.weight"][a],
        "0.bias": u * m["0.bias"][a],
        "2.weight": v[:, None] * m["2.weight"][b][:, a],
        "2.bias": v * m["2.bias"][b],
        "4.weight": m["4.weight"][:, b],
        "4.bias": m["4.bias"],
    }
    old = dict(result.model.named_parameters())
    for name, parameter in grown.named_parameters():
        torch.testing.assert_close(parameter, old[name] - lr * expected[name], rtol=1e-9, atol=1e-12)
        assert expected[name].abs().max() > 1e-6


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_new_optimizer_takes_the_state_and_trains_on(kind):
    case = BY_NAME["conv-bn-relu"]
    model = case.model()
    optimizer = OPTIMIZERS[kind](model.parameters())
    train(case, model, optimizer, range(2))
    result = s3d.split(model, measured(case).graph, random_plan(case, 2), epsilon=0.01, optimizer=optimizer)
    new = OPTIMIZERS[kind](result.model.parameters())
    new.load_state_dict(result.optimizer_state)
    for parameter in result.model.parameters():
        for value in new.state[parameter].values():
            assert not isinstance(value, Tensor) or value.shape in (parameter.shape, torch.Size([]))
    new.param_groups[0]["lr"] = 0.01
    if kind == "rprop":  # these two have kept their learning rate elsewhere
        new.param_groups[0]["step_sizes"] = (1e-3, 1e-2)
    for buffers in new.state.values() if kind == "asgd" else ():
        buffers["eta"].fill_(0.01)
    before = [parameter.detach().clone() for parameter in result.model.parameters()]
    train(case, result.model, new, range(2, 3))
    assert all(not torch.equal(p, old) for p, old in zip(result.model.parameters(), before, strict=True))


def test_the_state_of_the_old_optimizer_is_untouched():
    case = BY_NAME["mlp-tanh"]
    model = case.model()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    train(case, model, optimizer, range(2))
    before = copy.deepcopy(optimizer.state_dict())
    result = s3d.split(model, measured(case).graph, random_plan(case, 2), epsilon=0.1, optimizer=optimizer)
    for buffers in result.optimizer_state["state"].values():
        for value in buffers.values():
            value.fill_(9)
    check_same_state(optimizer.state_dict(), before)


def test_parameter_groups_in_another_order():
    case = BY_NAME["mlp-tanh"]
    model, graph, plan = case.model(), measured(case).graph, random_plan(case, 2)

    def grouped(model: nn.Module) -> torch.optim.Optimizer:
        decayed = [p for p in model.parameters() if p.dim() > 1]
        rest = [p for p in model.parameters() if p.dim() == 1]
        return torch.optim.SGD([{"params": rest}, {"params": decayed[::-1], "lr": 0.5}], lr=0.1, momentum=0.9)

    optimizer = grouped(model)
    train(case, model, optimizer, range(2))
    result = s3d.split(model, graph, plan, epsilon=0, optimizer=optimizer)
    new = grouped(result.model)
    new.load_state_dict(result.optimizer_state)
    for parameter in result.model.parameters():
        assert new.state[parameter]["momentum_buffer"].shape == parameter.shape
    assert [settings["lr"] for settings in new.param_groups] == [0.1, 0.5]


def test_without_an_optimizer_there_is_no_state():
    case = BY_NAME["mlp-tanh"]
    assert s3d.split(measured(case).model, measured(case).graph, random_plan(case, 0)).optimizer_state is None


def test_an_optimizer_of_another_model_is_refused():
    case = BY_NAME["mlp-tanh"]
    other = case.model()
    optimizer = OPTIMIZERS["sgd"](other.parameters())
    train(case, other, optimizer, range(1))
    with pytest.raises(s3d.ModelError, match="optimizer: expected one over the parameters of the model that is split"):
        s3d.split(measured(case).model, measured(case).graph, random_plan(case, 0), optimizer=optimizer)


@pytest.mark.parametrize("kind", REFUSED)
def test_state_that_cannot_grow_is_refused_by_name(kind):
    case, (make, message) = BY_NAME["mlp-tanh"], REFUSED[kind]
    model = case.model()
    optimizer = make(model.parameters())
    train(case, model, optimizer, range(2))
    with pytest.raises(s3d.ModelError, match=f"optimizer: expected buffers .*{message}.*; start a new one"):
        s3d.split(model, measured(case).graph, random_plan(case, 0), optimizer=optimizer)


def test_muon_goes_on_with_its_momentum():
    case = BY_NAME["mlp-tanh"]
    model, plan = case.model(), random_plan(case, 2)
    optimizer = torch.optim.Muon([p for p in model.parameters() if p.dim() == 2], lr=0.0)
    train(case, model, optimizer, range(2))
    result = s3d.split(model, measured(case).graph, plan, epsilon=0, optimizer=optimizer)
    new = torch.optim.Muon([p for p in result.model.parameters() if p.dim() == 2], lr=0.1)
    new.load_state_dict(result.optimizer_state)
    momentum = optimizer.state[model[0].weight]["momentum_buffer"]
    expected = plan.weights["0"][:, None] * momentum[result.index_map["0"]]
    torch.testing.assert_close(new.state[result.model[0].weight]["momentum_buffer"], expected)
    train(case, result.model, new, range(2, 3))


@pytest.mark.parametrize("key", ["z", "ax"])
def test_what_an_optimizer_keeps_of_the_parameters_grows_and_moves_as_they_do(key):
    case = BY_NAME["mlp-tanh"]
    model = case.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for parameter in model.parameters():
        optimizer.state[parameter][key] = parameter.detach().clone()
    result = s3d.split(model, measured(case).graph, random_plan(case, 2), epsilon=0.1, optimizer=optimizer)
    for place, parameter in enumerate(result.model.parameters()):
        assert torch.equal(result.optimizer_state["state"][place][key], parameter)


def test_state_of_no_parameter_is_refused():
    case = BY_NAME["mlp-tanh"]
    model = case.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train(case, model, optimizer, range(1))
    optimizer.state["count"] = torch.ones(1)
    with pytest.raises(s3d.ModelError, match="optimizer: expected state of parameters alone, got 'count'"):
        s3d.split(model, measured(case).graph, random_plan(case, 0), optimizer=optimizer)


def test_momentum_in_low_precision_stays_so():
    case = BY_NAME["mlp-tanh"]
    model = case.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for parameter in model.parameters():
        optimizer.state[parameter]["momentum_buffer"] = torch.ones_like(parameter, dtype=torch.bfloat16)
    result = s3d.split(model, measured(case).graph, random_plan(case, 0), optimizer=optimizer)
    assert all(b["momentum_buffer"].dtype == torch.bfloat16 for b in result.optimizer_state["state"].values())
