import pytest
import torch
from torch import nn

from nni_s3d.search.store import Store
from nni_s3d.tasks.data import Images, Loader
from nni_s3d.tasks.recipe import Recipe
from paper.trained import trained


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


def batches():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 1, 4, 4), generator=generator).to(torch.uint8)
    return Loader(Images(images, torch.randint(3, (40,), generator=generator)), (0.5,), (0.3,), 8, seed=1)


def test_a_network_is_trained_once(tmp_path):
    store, recipe = Store(str(tmp_path)), Recipe(epochs=2)
    first = trained(store, "one", network(), batches(), recipe)
    assert not torch.equal(first[1].weight, network()[1].weight)
    again = trained(store, "one", network(), batches(), Recipe(epochs=9))  # is loaded, whatever the recipe
    assert torch.equal(first[1].weight, again[1].weight)
    assert not store.exists("one/checkpoint.pt")


def test_what_was_interrupted_goes_on_from_the_last_epoch(tmp_path):
    recipe = Recipe(epochs=3)
    whole = trained(Store(str(tmp_path / "whole")), "one", network(), batches(), recipe)
    store, steps = Store(str(tmp_path / "cut")), []

    def interrupted():
        steps.append(1)
        if len(steps) == 8:  # five to an epoch
            raise KeyboardInterrupt
        return 0.0

    with pytest.raises(KeyboardInterrupt):
        trained(store, "one", network(), batches(), recipe, penalty=interrupted)
    steps.clear()
    again = trained(store, "one", network(), batches(), recipe, penalty=lambda: steps.append(1) or 0.0)
    assert len(steps) == 10  # two epochs
    assert torch.equal(again[1].weight, whole[1].weight)
