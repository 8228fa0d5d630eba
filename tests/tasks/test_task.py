from dataclasses import replace

import pytest
import torch

from nni_s3d.errors import ConfigError, ModelError
from nni_s3d.tasks.data import Clouds, DataSet, Folder
from nni_s3d.tasks.search_space import Space
from nni_s3d.tasks.task import DataSettings, digest, read_task
from tests import small_task


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"trainig": {}}, "task.yml: unknown key 'trainig'"),
        ({"directory": "x"}, "unknown key 'directory'"),
        ({"training": {"epochs": 1.5}}, "training.epochs: expected a whole number, got 1.5"),
        ({"training": {"lr": -1}}, "training.lr: expected a number > 0"),
        ({"model": {}}, "model: expected factory"),
        ({"data": {"name": "digits", "pad": -1}}, "pad: expected a whole number >= 0, got -1"),
        (
            {"data": {"name": "mnist"}},
            "data.name: expected one of digits, .*, modelnet40, got 'mnist'",
        ),
        ({"data": {"name": "imagefolder"}}, "data.folder: expected {path: ...}, .*, got None with imagefolder"),
        ({"data": {"name": "digits", "folder": {"path": "x"}}}, "data.folder: expected it with imagefolder only"),
        ({"data": {"name": "digits", "folder": "x"}}, "data.folder: expected a mapping or nothing, got 'x'"),
        (
            {"data": {"name": "imagefolder", "folder": {"path": "x"}, "pad": 4}},
            "data.pad: expected 0 with imagefolder, which crops at random anyway, got 4",
        ),
        ({"data": {"name": "digits", "points": 9}}, "points: expected no such setting for images, got 9"),
        ({"data": {"name": "digits", "shift": 0.1}}, r"shift: expected no such setting for images, got 0\.1"),
        ({"data": {"name": "modelnet40", "pad": 4}}, "pad: expected no such setting for clouds, got 4"),
        ({"data": {"name": "modelnet40", "points": 0}}, "points: expected a number >= 1, got 0"),
        ({"data": {"name": "modelnet40", "scale": 0.5}}, r"scale: expected a number >= 1, got 0\.5"),
        ({"data": {"name": "modelnet40", "shift": -1.0}}, r"shift: expected a number >= 0, got -1"),
        ({"curvature": {"samples": 0}}, "samples: expected a whole number >= 1, got 0"),
        ({"device": "tpu9"}, "device: expected auto or one that PyTorch finds here, got 'tpu9'"),
    ],
)
def test_bad_tasks_are_refused(tmp_path, task, message):
    small_task.write(tmp_path, task=task)
    with pytest.raises(ConfigError, match=message):
        read_task(tmp_path / "task.yml")


def test_the_same_seed_makes_the_same_weights(tmp_path):
    small_task.write_residual(tmp_path)
    task = read_task(tmp_path / "task.yml")
    one, same, other = (task.build_model({"stem": 9, "reduce": 4, "grouped": 4}, seed) for seed in (1, 1, 2))
    assert torch.equal(one.stem.weight, same.stem.weight)
    assert not torch.equal(one.stem.weight, other.stem.weight)


@pytest.mark.parametrize(
    ("widths", "error", "message"),
    [
        ({"stem": 3}, ConfigError, "model: widths: expected at least 4 for stem, as it is, got 3"),
        (
            {"nothing": 3},
            ConfigError,
            "model: widths: expected splittable groups .stem, reduce, grouped., got 'nothing'",
        ),
        ({"grouped": 7}, ModelError, "model: plan: expected 2 equal parts where grouped.weight cuts its channels"),
    ],
)
def test_widths_that_the_model_cannot_have_are_refused(tmp_path, widths, error, message):
    small_task.write_residual(tmp_path)
    with pytest.raises(error, match=message):
        read_task(tmp_path / "task.yml").build_model(widths, 0)


@pytest.fixture
def task(tmp_path):
    small_task.write(tmp_path)
    return read_task(tmp_path / "task.yml")


def test_a_task_finds_its_search_space_beside_it(task):
    assert task.space() == Space.parse(small_task.SPACE)


def test_the_fingerprint_is_of_what_determines_results(task):
    elsewhere = replace(
        task, device="auto", directory="x", search_space="y", curvature=replace(task.curvature, memory=1)
    )
    assert digest(elsewhere.fingerprint) == digest(task.fingerprint)
    others = [
        replace(task, seed=1),
        replace(task, data=replace(task.data, flip=True)),
        replace(task, model={**task.model, "num_classes": 12}),
        replace(task, training=replace(task.training, lr=0.2)),
        replace(task, curvature=replace(task.curvature, samples=61)),
    ]
    assert len({digest(t.fingerprint) for t in (task, *others)}) == 1 + len(others)
    assert "folder" not in task.fingerprint["data"]
    folders = [Folder("x", 28, 1), Folder("x", 28, 2), Folder("x", 32, 1)]
    of_folders = [replace(task, data=DataSettings("imagefolder", folder=folder)).fingerprint for folder in folders]
    assert of_folders[0] == of_folders[1] != of_folders[2]


def test_settings_of_clouds_are_in_the_fingerprint_only_if_they_are_set(task):
    assert not {"points", "scale", "shift"} & task.fingerprint["data"].keys()
    clouds = replace(task, data=DataSettings("modelnet40", points=64, scale=1.5))
    assert clouds.fingerprint["data"]["points"] == 64
    assert "shift" not in clouds.fingerprint["data"]


def test_clouds_are_stretched_and_moved_for_training_alone(task):
    clouds = Clouds(torch.rand(9, 3, 5), torch.arange(9))
    data = DataSet(clouds, clouds, clouds, 9, (), ())
    task = replace(task, data=DataSettings("modelnet40", scale=1.5, shift=0.2))
    loader = task.training_loader(data, 3)
    assert (loader.scale, loader.shift) == (1.5, 0.2)
    ((inputs, labels),) = task.curvature_loader(data, 3)
    assert torch.equal(inputs, clouds.points[labels])


def test_building_leaves_the_random_state_alone(task):
    state = torch.get_rng_state()
    task.build_model(dict.fromkeys(small_task.NAMES, 3), 5)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_samples_of_curvature_are_some_training_images_as_they_are(task):
    data = task.load_data()
    loader = task.curvature_loader(data, 3)
    assert [len(labels) for _, labels in loader] == [40, 20]
    for (images, labels), (same_images, same_labels) in zip(loader, loader, strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)
    known = {image.numpy().tobytes() for image in data.train.pixels}
    assert {image.numpy().tobytes() for image in loader.images.pixels} <= known
    assert not torch.equal(task.curvature_loader(data, 4).images.pixels, loader.images.pixels)


def test_training_images_are_shuffled_and_augmented(task):
    data = task.load_data()
    loader = task.training_loader(data, 3)
    assert (loader.batch_size, loader.seed, loader.pad, loader.flip) == (50, 3, 1, False)
    assert loader.images is data.train


def test_padding_beyond_the_image_is_refused(task):
    with pytest.raises(ConfigError, match=r"data\.pad: expected at most 8, the size of the images, got 9"):
        replace(task, data=replace(task.data, pad=9)).load_data()
