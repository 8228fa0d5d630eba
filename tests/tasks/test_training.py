import copy

import pytest
import torch
from torch import nn

from nni_s3d.errors import DivergenceError, StoreError
from nni_s3d.growth.seeds import seed_for
from nni_s3d.tasks import ranks
from nni_s3d.tasks.data import Images, Loader
from nni_s3d.tasks.optimizers import make_optimizer
from nni_s3d.tasks.recipe import Recipe
from nni_s3d.tasks.training import Hooks, evaluate, train
from tests.processes import side_by_side


def data(n=60):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (n,), generator=generator)
    noise = torch.randint(0, 60, (n, 1, 4, 4), generator=generator)
    return Images((noise + 60 * labels.reshape(-1, 1, 1, 1)).to(torch.uint8), labels)


def loader(**settings):
    return Loader(data(), (0.4,), (0.2,), batch_size=16, **settings)


def network():
    torch.manual_seed(0)
    convolutions = nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 4)
    return nn.Sequential(*convolutions, nn.Flatten(), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_training_learns(optimizer):
    model = network()
    before = evaluate(model, loader())
    train(model, loader(seed=0), Recipe(epochs=20, lr=0.05, optimizer=optimizer))
    after = evaluate(model, loader())
    assert after.loss < before.loss / 2
    assert after.accuracy > 0.9


def test_a_network_that_diverges_is_never_kept():
    saved = []
    with pytest.raises(DivergenceError, match=r"^seed: expected training to converge; .* NaN in \S+ after epoch \d+$"):
        train(network(), loader(seed=0), Recipe(epochs=20, lr=1e12), hooks=Hooks(save=saved.append), title="seed")
    assert all(weight.isfinite().all() for state in saved for weight in state["model"].values())


class KilledError(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_an_interrupted_phase_ends_with_the_same_weights(optimizer):
    recipe = Recipe(epochs=6, lr=0.05, optimizer=optimizer, warmup_epochs=1)
    whole = network()
    train(whole, loader(seed=3, pad=1), recipe, seed=5)
    kept = {}

    def save(state):
        kept["state"] = torch.utils._pytree.tree_map(lambda x: x.clone() if torch.is_tensor(x) else x, state)
        if state["epoch"] == 3:
            raise KilledError

    with pytest.raises(KilledError):
        train(network(), loader(seed=3, pad=1), recipe, seed=5, hooks=Hooks(save=save))
    resumed = network()
    train(resumed, loader(seed=3, pad=1), recipe, seed=5, hooks=Hooks(load=lambda: kept["state"]))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: [], "got TypeError"),
        (lambda state: {}, "got KeyError: 'model'"),
        (lambda state: {**state, "model": {}}, r"got RuntimeError: Error\(s\) in loading state_dict for Sequential:$"),
        (lambda state: {**state, "optimizer": 3}, "got AttributeError"),
        (lambda state: {**state, "epoch": 3}, "got the epoch 3"),
        (lambda state: {**state, "epoch": "1"}, "got the epoch '1'"),
    ],
)
def test_other_checkpoints_are_refused(change, message):
    kept = []
    train(network(), loader(seed=0), Recipe(epochs=2), hooks=Hooks(save=kept.append))
    hooks = Hooks(load=lambda: change(kept[0]), checkpoint="a/checkpoint.pt")
    expected = f"^a/checkpoint.pt: expected a checkpoint of this network and recipe, {message}"
    with pytest.raises(StoreError, match=expected):
        train(network(), loader(seed=0), Recipe(epochs=2), hooks=hooks)


def test_training_leaves_the_random_state_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    model = network()
    torch.set_rng_state(state)
    train(model, loader(seed=0), Recipe(epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_growth_can_go_on_from_before_the_decay():
    recipe, kept = Recipe(epochs=5, lr=0.05, schedule="wsd", decay=0.3), []
    train(network(), loader(seed=3), recipe, hooks=Hooks(before_decay=lambda state: kept.append(copy.deepcopy(state))))
    (state,) = kept
    assert state["scheduler"]["last_epoch"] == 14  # of 5 epochs with 4 steps each
    stable = network()
    plain = train(stable, loader(seed=3), Recipe(epochs=3, lr=0.05, schedule="constant"))
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(0, 3))
        for _, (inputs, targets) in zip(range(2), loader(seed=3).epoch(3), strict=False):
            plain.zero_grad()
            nn.functional.cross_entropy(stable(inputs), targets).backward()
            plain.step()
    torch.testing.assert_close(state["model"], stable.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(state["optimizer"]["state"], plain.state_dict()["state"], rtol=0, atol=0)


def test_other_schedules_have_no_stable_phase():
    hooks = Hooks(before_decay=lambda state: pytest.fail("called"))
    for schedule in ("constant", "step", "cosine"):
        train(network(), loader(seed=0), Recipe(epochs=1, schedule=schedule), hooks=hooks)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_an_optimizer_goes_on_with_the_state_of_another_and_the_recipe_s_rate(optimizer):
    settings = {"schedule": "constant", "optimizer": optimizer}
    once, twice = network(), network()
    once[-2] = twice[-2] = nn.Identity()  # no dropout, which draws other numbers in every epoch
    first = train(once, loader(), Recipe(epochs=1, lr=0.01, **settings))
    train(once, loader(), Recipe(epochs=1, lr=0.02, **settings), optimizer_state=first.state_dict())
    plain = make_optimizer(twice, Recipe(lr=0.01, **settings))
    for rate in (0.01, 0.02):
        plain.param_groups[0]["lr"] = rate
        for inputs, targets in loader().epoch(0):
            plain.zero_grad()
            nn.functional.cross_entropy(twice.train()(inputs), targets).backward()
            plain.step()
    torch.testing.assert_close(once.state_dict(), twice.state_dict(), rtol=0, atol=0)


def trained(checkpoint=None, amount=60):
    """Train in float64 from the weights, or the checkpoint, of the first process; return weights and epochs saved."""
    torch.manual_seed(ranks.rank())
    model = nn.Sequential(nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))
    batches = Double(data(amount), (0.4,), (0.2,), batch_size=16, seed=3, pad=1, flip=True)
    saved = []

    def save(state):
        saved.append(state["epoch"])
        if checkpoint is not None and state["epoch"] == 2:
            torch.save(state, checkpoint)

    def load():
        return torch.load(checkpoint) if checkpoint is not None and checkpoint.exists() else None

    recipe = Recipe(epochs=4, lr=0.05, warmup_epochs=1, label_smoothing=0.1, decay_norm_and_bias=False)
    hooks = Hooks(load=load, save=save) if ranks.rank() == 0 else Hooks()
    optimizer = train(model.double(), batches, recipe, seed=5, hooks=hooks)
    assert not any("forward" in vars(module) for module in model.modules())
    kept = [state["momentum_buffer"] for state in optimizer.state_dict()["state"].values()]
    return [value.tolist() for value in (*model.state_dict().values(), *kept)], saved


class Double(Loader):
    def epoch(self, epoch):
        return ((inputs.double(), targets) for inputs, targets in super().epoch(epoch))


@pytest.mark.parametrize(("processes", "amount"), [(2, 60), (3, 55)])  # the last batch has 12 and 7 samples
def test_several_processes_train_as_one_does(processes, amount):
    (expected, _), others = trained(amount=amount), side_by_side(lambda: trained(amount=amount), processes)
    for weights, _ in others:
        for mine, whole in zip(weights, expected, strict=True):
            torch.testing.assert_close(torch.tensor(mine), torch.tensor(whole), rtol=1e-9, atol=1e-12)


def test_several_processes_go_on_from_the_checkpoint_of_the_first(tmp_path):
    expected, _ = trained()
    once, again = (side_by_side(lambda: trained(tmp_path / "checkpoint.pt")) for _ in range(2))
    assert [saved for _, saved in (*once, *again)] == [[1, 2, 3, 4], [], [3, 4], []]
    assert once[0][0] == again[0][0] == again[1][0]
    alone, saved = trained(tmp_path / "checkpoint.pt")  # with another number of processes, too
    assert saved == [3, 4]
    for mine, whole in zip(alone, expected, strict=True):
        torch.testing.assert_close(torch.tensor(mine), torch.tensor(whole), rtol=1e-9, atol=1e-12)


def test_a_penalty_is_added_to_the_loss_of_every_batch():
    """One of constant gradient, on a parameter of no other use, which falls by the rate in every step."""
    recipe = Recipe(epochs=2, lr=0.1, momentum=0, weight_decay=0, schedule="constant")
    penalised, plain = network(), network()
    penalised.register_parameter("extra", nn.Parameter(torch.ones(3)))
    train(penalised, loader(seed=3), recipe, hooks=Hooks(penalty=lambda: penalised.extra.sum()))
    train(plain, loader(seed=3), recipe)
    assert torch.allclose(penalised.extra, torch.full((3,), 1 - 0.1 * 2 * len(loader())))
    assert torch.equal(penalised[-1].bias, plain[-1].bias)


@pytest.mark.parametrize("classes", [99, 100])
def test_of_many_classes_the_five_best_guesses_count_too(classes):
    class Fixed(nn.Module):
        """Guesses classes 9, 8, 7, ... in this order, whatever it sees."""

        def forward(self, x):
            scores = -torch.arange(classes, dtype=torch.float32)
            scores[:10] = torch.arange(10)
            return scores.expand(len(x), -1)

    images = Images(torch.zeros(8, 1, 4, 4, dtype=torch.uint8), torch.tensor([9, 9, 8, 5, 4, 3, 50, 0]))
    found = evaluate(Fixed(), Loader(images, (0.4,), (0.2,), batch_size=3))
    assert found.accuracy == 2 / 8
    assert found.top5 == (4 / 8 if classes >= 100 else None)
