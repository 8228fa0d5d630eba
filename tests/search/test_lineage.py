import pytest

from nni_s3d.search.lineage import Lineage
from nni_s3d.tasks.training import Recipe


@pytest.mark.parametrize(
    ("settings", "share", "epochs"),
    [
        ({}, 1.0, 20),
        ({}, 0.5, 10),
        ({}, 0.34, 7),
        ({}, 0.001, 1),
        ({"epochs": 90}, 1.0, 90),
        ({"epochs": 90}, 0.1, 9),
        ({"phases": "epochs"}, 0.5, 20),
        ({"phases": "epochs", "epochs": 7}, 0.5, 7),
    ],
)
def test_a_phase_costs_as_many_macs_or_epochs_as_the_first(settings, share, epochs):
    task = Recipe(epochs=20, warmup_epochs=5, lr=0.2, momentum=0.5)
    found = Lineage(**settings).recipe(task, share)
    assert found.epochs == epochs
    assert found.warmup_epochs / epochs == pytest.approx(5 / 20)
    assert (found.lr, found.momentum) == (0.2, 0.5)


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        ({}, "new-s0"),
        ({"seed": 3}, "new-s3"),
        ({"method": "signed"}, "c1.3-m2-s0"),
        ({"method": "signed", "c": 1.0, "copies": 4}, "c1-m4-s0"),
        ({"name": "mine"}, "mine"),
    ],
)
def test_a_lineage_is_called_after_its_settings(settings, label):
    assert Lineage(**settings).label == label
