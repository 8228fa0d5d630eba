import csv

import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.tasks.data import DataSet, Images
from paper import filters
from paper.guided_gradients import Seen


@pytest.fixture
def traced():
    torch.manual_seed(0)
    model = filters.small_vgg19(0.05, 10).eval()
    image = torch.randn(1, 3, 32, 32)
    return model, image, filters.spectrum_of_last(model, image, torch.tensor([3]))


def test_the_spectrum_is_that_of_the_last_convolution(traced):
    model, image, spectrum = traced
    graph = s3d.trace(model, image)
    op = s3d.SplittingOperator(model, graph, [(image, torch.tensor([3]))], F.cross_entropy)
    matrix = op.dense("0.49")[5]
    ends = torch.linalg.eigvalsh(matrix.double())
    assert spectrum.lambda_min[5].item() == pytest.approx(ends[0].item(), rel=1e-2, abs=1e-6)
    assert spectrum.lambda_max[5].item() == pytest.approx(ends[-1].item(), rel=1e-2, abs=1e-6)


def test_a_split_of_no_length_changes_nothing_and_a_longer_one_more(traced):
    model, image, spectrum = traced
    seen = Seen(model, image)
    number = next(i for i in range(len(spectrum.lambda_min)) if float(seen.picture(i).norm()) > 0)
    assert filters.change(seen, spectrum, number, 0.0).mean == pytest.approx(0, abs=1e-6)
    short, long = (filters.change(seen, spectrum, number, epsilon).mean for epsilon in (0.01, 1.0))
    assert 0 <= short < long
    assert set(filters.change(seen, spectrum, number, 0.1).pictures) == {"", *filters.WAYS}


def test_errors_are_one_line(tmp_path):
    for content, got in ((b"no weights", "UnpicklingError"), (None, "RuntimeError")):
        file = tmp_path / "vgg19.pth"
        if content is None:
            torch.save(torch.nn.Linear(2, 2).state_dict(), file)
        else:
            file.write_bytes(content)
        with pytest.raises(s3d.ConfigError, match="expected the weights of torchvision's vgg19, got ") as caught:
            filters.vgg19(file)
        assert "\n" not in str(caught.value)
        assert got in str(caught.value)
    (tmp_path / "no.png").write_bytes(b"no image")
    with pytest.raises(s3d.S3DError, match="expected an image, got UnidentifiedImageError"):
        filters.read_image(tmp_path / "no.png")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_in_either_format_are_loaded(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(torchvision.models, "vgg19", lambda: torch.nn.Linear(2, 2))  # the real one has 570 MB
    weights, file = torch.nn.Linear(2, 2).state_dict(), tmp_path / f"vgg19.{suffix}"
    torch.save(weights, file) if suffix == "pth" else save_file(weights, file)
    assert torch.equal(filters.vgg19(file).weight, weights["weight"])


def test_an_image_is_cut_and_scaled_as_vgg19_wants_it(tmp_path):
    Image.new("RGB", (300, 260), (255, 0, 0)).save(tmp_path / "red.png")
    image = filters.read_image(tmp_path / "red.png")
    assert image.shape == (1, 3, 224, 224)
    assert image[0, :, 0, 0].tolist() == pytest.approx([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225], rel=1e-5)


@pytest.mark.slow
def test_the_scale_of_the_paper(tmp_path, capsys):
    """With random weights: the file of the trained ones has the same names and shapes."""
    torch.manual_seed(0)
    save_file(torchvision.models.vgg19().state_dict(), tmp_path / "vgg19.safetensors")
    Image.effect_noise((256, 256), 80).convert("RGB").save(tmp_path / "noise.png")
    files = ["--weights", str(tmp_path / "vgg19.safetensors"), "--image", str(tmp_path / "noise.png")]
    filters.main([*files, "--measured", "4", "--shown", "1", "--out", str(tmp_path)])
    assert len(list(csv.DictReader((tmp_path / "filters.csv").open()))) == 4
    assert "1 images, 4 filters each" in capsys.readouterr().out


def test_it_needs_weights_and_an_image_at_the_scale_of_the_paper(tmp_path):
    with pytest.raises(SystemExit, match="error: weights: expected --weights and --image at the scale of the paper"):
        filters.main(["--out", str(tmp_path)])


def test_the_small_scale_trains_draws_and_measures(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    torch.manual_seed(0)
    part = Images(torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8), torch.randint(0, 4, (40,)))
    monkeypatch.setattr(filters, "load", lambda *_: DataSet(part, part, part, 4, (0.5,) * 3, (0.3,) * 3))
    settings = [
        "--scale",
        "small",
        "--width",
        "0.05",
        "--epochs",
        "1",
        "--measured",
        "5",
        "--shown",
        "1",
        "--images",
        "2",
    ]
    filters.main([*settings, "--out", str(tmp_path)])
    rows = list(csv.DictReader((tmp_path / "filters.csv").open()))
    assert [row["image"] for row in rows] == ["0"] * 5 + ["1"] * 5
    for row in rows:
        assert float(row["rho"]) == max(abs(float(row["lambda_min"])), abs(float(row["lambda_max"])))
        assert float(row["change"]) == pytest.approx(sum(float(row[way]) for way in filters.WAYS) / 4)
    assert (tmp_path / "filters.png").read_bytes().startswith(b"\x89PNG")
    first, *others = capsys.readouterr().out.splitlines()
    assert first == "rank correlation of the change of the picture, 2 images, 5 filters each"
    assert [line.split(":")[0] for line in others] == ["with rho", "with |lambda|, both ends"]


def test_correlations_are_those_of_ranks():
    """Two filters: the larger rho changes more; of the four ends the two larger ones have changed places."""
    row = {"lambda_min": -1.0, "lambda_max": 3.0, "rho": 3.0, "change": 0.2, "- v_min": 0.1, "+ v_min": 0.1}
    other = {"lambda_min": -2.0, "lambda_max": 4.0, "rho": 4.0, "change": 0.3, "- v_min": 0.2, "+ v_min": 0.2}
    rows = [row | {"- v_max": 0.5, "+ v_max": 0.7}, other | {"- v_max": 0.3, "+ v_max": 0.3}]
    assert filters.correlations(rows) == (pytest.approx(1), pytest.approx(0.8))
