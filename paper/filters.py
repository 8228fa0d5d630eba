"""Figures 4 and 5: what the filters of VGG19 see in one image, before and after they are split.

    python -m paper.filters --weights vgg19.pth --image FILE ... [--measured 64] [--out reports/filters]
    python -m paper.filters --scale small [--images 20] [--epochs 8] [--samples 10000]

The first line takes torchvision's VGG19 with the weights in a file (vgg19-dcbb9e9d.pth of torchvision, or safetensors).
The second one takes a quarter of its widths, with batch norms, and trains it on CIFAR-100 (NNI_S3D_DATA says where that
is); OUT keeps its weights, and the same command goes on from the last epoch.

The splitting matrices are those of the last convolution, on one image. A filter is seen by guided back-propagation
(Springenberg et al., 2015) of its whole map. The figure is of the first image. It has the filters of largest and
smallest rho, the larger of |lambda_min| and |lambda_max|: in the middle as they are, on the left at theta +- epsilon
v_min, on the right at theta +- epsilon v_max. filters.csv has by how much the pictures of --measured filters change.
Two rank correlations are printed, the mean over the images and its standard deviation: of that with rho over the
filters, and of the change along an eigenvector with |lambda| over both ends of every filter.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import nni_s3d as s3d
from nni_s3d.errors import ConfigError, DataError, S3DError, first_line
from nni_s3d.search.store import Store
from nni_s3d.tasks.data import Loader, load
from nni_s3d.tasks.recipe import Recipe
from paper.files import write
from paper.guided_gradients import Seen
from paper.trained import trained

VGG19 = (64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512, "M")
WAYS = ("- v_min", "+ v_min", "- v_max", "+ v_max")
COLUMNS = ("image", "filter", "lambda_min", "lambda_max", "rho", *WAYS, "change")


def vgg19(file: Path) -> nn.Module:
    """Return torchvision's VGG19 with the weights in a file.

    Raises:
        ConfigError: the file cannot be read, or is of another architecture.
    """
    import torchvision  # here, since this takes seconds

    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            weights = load_file(file)
        else:
            weights = torch.load(file, map_location="cpu", weights_only=True)
        model: nn.Module = torchvision.models.vgg19()
        model.load_state_dict(weights)
    except Exception as error:  # whatever PyTorch says of a file
        expected = "expected the weights of torchvision's vgg19"
        raise ConfigError(f"weights: {file}: {expected}, got {type(error).__name__}: {first_line(error)}") from error
    return model


def small_vgg19(width: float, num_classes: int) -> nn.Module:
    """Return VGG19 with batch norms, all its widths times a factor, for images of 32 x 32."""
    import torchvision

    sizes = [max(4, round(size * width)) if isinstance(size, int) else size for size in VGG19]
    features = torchvision.models.vgg.make_layers(sizes, batch_norm=True)
    return nn.Sequential(features, nn.Flatten(), nn.Linear(int(sizes[-2]), num_classes))


def read_image(file: Path) -> Tensor:
    """Return an image (1, 3, 224, 224) as VGG19 wants it.

    Raises:
        DataError: the file holds no image.
    """
    import torchvision
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            made: Tensor = torchvision.models.VGG19_Weights.IMAGENET1K_V1.transforms()(image.convert("RGB"))[None]
            return made
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"image: {file}: expected an image, got {type(error).__name__}: {first_line(error)}") from error


@dataclass(frozen=True)
class Change:
    """A filter before and after its splits."""

    number: int
    pictures: dict[str, Tensor]  # "" for the filter as it is
    sizes: dict[str, float]  # of the change, relative to the picture before

    @property
    def mean(self) -> float:
        """Of the four splits."""
        return sum(self.sizes.values()) / len(self.sizes)


def change(seen: Seen, spectrum: s3d.Spectrum, number: int, epsilon: float) -> Change:
    """Return how the picture of a filter changes by its splits."""
    theta, before = seen.theta(number), seen.picture(number)
    pictures, sizes = {"": before}, {}
    for way in WAYS:
        vectors = spectrum.v_min if way.endswith("min") else spectrum.v_max
        sign = -1 if way.startswith("-") else 1
        pictures[way] = seen.picture(number, theta + sign * epsilon * vectors[number])
        sizes[way] = float((pictures[way] - before).norm() / before.norm().clamp(min=1e-12))
    return Change(number, pictures, sizes)


def spectrum_of_last(model: nn.Module, image: Tensor, label: Tensor) -> s3d.Spectrum:
    """Return the spectra of the last convolution's filters on one image."""
    graph = s3d.trace(model, image)
    name = [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)][-1]
    graph = graph.refuse_others([name], "only the last convolution is asked for")
    return s3d.spectrum(s3d.SplittingOperator(model, graph, [(image, label)], F.cross_entropy))[name]


def draw(changes: list[Change], rho: Tensor, path: Path) -> None:
    """Draw a panel of five pictures for every filter, in grey; all of a panel have one scale."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    ways = ("- v_min", "+ v_min", "", "- v_max", "+ v_max")
    size = (1.7 * len(ways), 2.0 * len(changes))
    figure, axes = plt.subplots(len(changes), len(ways), figsize=size, layout="constrained", squeeze=False)
    for row, one in zip(axes, changes, strict=True):
        most = max(float(picture.abs().amax()) for picture in one.pictures.values())
        for axis, way in zip(row, ways, strict=True):
            axis.imshow(one.pictures[way].mean(dim=0).numpy(), cmap="gray", vmin=-most / 3, vmax=most / 3)
            axis.set(xticks=[], yticks=[])
            axis.set_title(f"{way}\n{one.sizes[way]:.1%}" if way else "before", fontsize=8)
        row[0].set_ylabel(f"filter {one.number}\nrho {rho[one.number]:.1e}", fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


class Sight:
    """What the filters of the last convolution see in one image, and how it changes when they are split."""

    def __init__(self, model: nn.Module, image: Tensor, label: Tensor, epsilon: float) -> None:
        self.spectrum, self.seen, self.epsilon = spectrum_of_last(model, image, label), Seen(model, image), epsilon
        self.rho = torch.maximum(self.spectrum.lambda_min.abs(), self.spectrum.lambda_max.abs())
        order = self.rho.argsort(descending=True).tolist()
        self.active = [number for number in order if float(self.seen.picture(number).norm()) > 0]

    def change(self, number: int) -> Change:
        """Return how the picture of a filter changes."""
        return change(self.seen, self.spectrum, number, self.epsilon)

    def draw(self, shown: int, path: Path) -> None:
        """Draw the filters of largest and of smallest rho, so many of each."""
        numbers = dict.fromkeys(self.active[:shown] + self.active[-shown:])
        draw([self.change(number) for number in numbers], self.rho, path)

    def rows(self, image: int, measured: int, seed: int) -> list[dict[str, float]]:
        """Measure some filters, drawn by chance."""
        some = torch.randperm(len(self.active), generator=torch.Generator().manual_seed(seed))[:measured]
        made = []
        for number in sorted(self.active[i] for i in some.tolist()):
            found = self.change(number)
            values = (float(value[number]) for value in (self.spectrum.lambda_min, self.spectrum.lambda_max, self.rho))
            made.append(dict(zip(COLUMNS, (image, number, *values, *found.sizes.values(), found.mean), strict=True)))
        return made


def correlations(rows: list[dict[str, float]]) -> tuple[float, float]:
    """Return the rank correlation of rho with the change, and of |lambda| with that along its eigenvector."""
    of_filters = spearmanr([row["rho"] for row in rows], [row["change"] for row in rows])
    ends = [(row, end) for row in rows for end in ("min", "max")]
    lengths = [abs(row[f"lambda_{end}"]) for row, end in ends]
    along = [(row[f"- v_{end}"] + row[f"+ v_{end}"]) / 2 for row, end in ends]
    return float(of_filters.statistic), float(spearmanr(lengths, along).statistic)


def network_and_images(parsed: argparse.Namespace) -> tuple[nn.Module, Iterable[tuple[Tensor, Tensor]]]:
    """Return the network, and images (1, ...) with their labels: those that the network says, or that they have."""
    if parsed.scale == "paper":
        if parsed.weights is None or parsed.image is None:
            raise ConfigError("weights: expected --weights and --image at the scale of the paper, got none")
        model, images = vgg19(parsed.weights).eval(), [read_image(file) for file in parsed.image]
        with torch.no_grad():
            return model, [(image, model(image).argmax(dim=1)) for image in images]
    data = load("cifar100", 0.1, parsed.samples)
    model = small_vgg19(parsed.width, data.num_classes)
    loader = Loader(data.train, data.mean, data.std, 128, seed=parsed.seed, pad=4, flip=True)
    recipe = Recipe(epochs=parsed.epochs, lr=0.05, weight_decay=5e-4, warmup_epochs=min(1, parsed.epochs / 2))
    name = f"vgg19-{parsed.width:g}-{parsed.samples}-{parsed.epochs}-{parsed.seed}"
    trained(Store(str(parsed.out)), name, model, loader, recipe, parsed.seed)
    return model.eval(), islice(Loader(data.test, data.mean, data.std, 1), parsed.images)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", choices=["paper", "small"], default="paper")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--image", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=20, help="of CIFAR-100's test set, at the small scale")
    parser.add_argument("--measured", type=int, default=64, help="how many filters")
    parser.add_argument("--epsilon", type=float, default=0.01)
    parser.add_argument("--shown", type=int, default=3, help="filters of largest and of smallest rho in the figure")
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("reports/filters"))
    parsed = parser.parse_args(arguments)
    parsed.out.mkdir(parents=True, exist_ok=True)
    try:
        torch.manual_seed(parsed.seed)
        model, images = network_and_images(parsed)
        bar = tqdm(list(images), desc="spectra", disable=None)
        sights = [Sight(model, image, label, parsed.epsilon) for image, label in bar]
    except S3DError as error:
        sys.exit(f"error: {error}")
    if not all(len(sight.active) > 1 for sight in sights):
        sys.exit("error: image: expected one in which some filters see something, got none")
    numbered = enumerate(tqdm(sights, desc="filters", disable=None))
    of_images = [sight.rows(image, parsed.measured, parsed.seed) for image, sight in numbered]
    write(chain.from_iterable(of_images), parsed.out / "filters.csv", COLUMNS)
    print(f"rank correlation of the change of the picture, {len(sights)} images, {len(of_images[0])} filters each")
    for title, found in zip(
        ("rho", "|lambda|, both ends"), zip(*map(correlations, of_images), strict=True), strict=True
    ):
        spread = f" +- {statistics.stdev(found):.2f}" if len(found) > 1 else ""
        print(f"with {title}: {statistics.mean(found):.2f}{spread}")
    if find_spec("matplotlib"):
        sights[0].draw(parsed.shown, parsed.out / "filters.png")


if __name__ == "__main__":
    main()
