"""Figures 4 and 5: what the filters of VGG19 see in one image, before and after they are split.

    python -m paper.filters [--weights vgg19.pth --image FILE] [--measured 64] [--out reports/filters]
    python -m paper.filters --scale small [--epochs 8] [--samples 10000]

The first line takes torchvision's VGG19 with the weights in a file (vgg19-dcbb9e9d.pth of torchvision, or safetensors).
The second one takes a quarter of its widths, with batch norms, and trains it on CIFAR-100 (NNI_S3D_DATA says where that
is); OUT keeps its weights, and the same command goes on from the last epoch.

The splitting matrices are those of the last convolution, on the one image. A filter is seen by guided back-propagation
(Springenberg et al., 2015) of its whole map. The figure has the filters of largest and smallest rho, the larger of
|lambda_min| and |lambda_max|: in the middle as they are, on the left at theta +- epsilon v_min, on the right at theta
+- epsilon v_max. filters.csv has by how much the pictures of --measured filters change, and what is printed is the rank
correlation of that with rho.
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import nni_s3d as s3d
from nni_s3d.errors import ConfigError, DataError, S3DError, first_line
from nni_s3d.search.store import Store
from nni_s3d.tasks.data import Loader, load
from nni_s3d.tasks.recipe import Recipe
from paper.guided_gradients import Seen
from paper.trained import trained

VGG19 = (64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512, "M")
WAYS = ("- v_min", "+ v_min", "- v_max", "+ v_max")
COLUMNS = ("filter", "lambda_min", "lambda_max", "rho", *WAYS, "change")


def vgg19(file: Path) -> nn.Module:
    """Return torchvision's VGG19 with the weights in a file.

    Raises:
        ConfigError: the file cannot be read, or is of another architecture.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            weights = load_file(file)
        else:
            weights = torch.load(file, map_location="cpu", weights_only=True)
        model = torchvision.models.vgg19()
        model.load_state_dict(weights)
    except Exception as error:  # whatever PyTorch says of a file
        expected = "expected the weights of torchvision's vgg19"
        raise ConfigError(f"weights: {file}: {expected}, got {type(error).__name__}: {first_line(error)}") from error
    return model


def small_vgg19(width: float, num_classes: int) -> nn.Module:
    """Return VGG19 with batch norms, all its widths times a factor, for images of 32 x 32."""
    sizes = [max(4, round(size * width)) if isinstance(size, int) else size for size in VGG19]
    features = torchvision.models.vgg.make_layers(sizes, batch_norm=True)
    return nn.Sequential(features, nn.Flatten(), nn.Linear(int(sizes[-2]), num_classes))


def read_image(file: Path) -> Tensor:
    """Return an image (1, 3, 224, 224) as VGG19 wants it.

    Raises:
        DataError: the file holds no image.
    """
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


def measure(seen: Seen, spectrum: s3d.Spectrum, numbers: list[int], epsilon: float, out: Path) -> tuple[float, float]:
    """Write the changes of some filters and return the rank correlation with rho, and its p-value."""
    rho = torch.maximum(spectrum.lambda_min.abs(), spectrum.lambda_max.abs())
    rows = []
    for number in tqdm(numbers, desc="filters", disable=None):
        found = change(seen, spectrum, number, epsilon)
        values = (float(value[number]) for value in (spectrum.lambda_min, spectrum.lambda_max, rho))
        rows.append(dict(zip(COLUMNS, (number, *values, *found.sizes.values(), found.mean), strict=True)))
    with (out / "filters.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    result = spearmanr([row["rho"] for row in rows], [row["change"] for row in rows])
    return float(result.statistic), float(result.pvalue)


def network_and_image(parsed: argparse.Namespace) -> tuple[nn.Module, Tensor, Tensor]:
    """Return the network, an image (1, ...), and its label: the one that the network says, or that it has."""
    if parsed.scale == "paper":
        if parsed.weights is None or parsed.image is None:
            raise ConfigError("weights: expected --weights and --image at the scale of the paper, got none")
        model, image = vgg19(parsed.weights).eval(), read_image(parsed.image)
        with torch.no_grad():
            return model, image, model(image).argmax(dim=1)
    data = load("cifar100", 0.1, parsed.samples)
    model = small_vgg19(parsed.width, data.num_classes)
    loader = Loader(data.train, data.mean, data.std, 128, seed=parsed.seed, pad=4, flip=True)
    recipe = Recipe(epochs=parsed.epochs, lr=0.05, weight_decay=5e-4, warmup_epochs=min(1, parsed.epochs / 2))
    name = f"vgg19-{parsed.width:g}-{parsed.samples}-{parsed.epochs}-{parsed.seed}"
    trained(Store(str(parsed.out)), name, model, loader, recipe, parsed.seed)
    image, label = next(iter(Loader(data.test, data.mean, data.std, 1)))
    return model.eval(), image, label


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", choices=["paper", "small"], default="paper")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--image", type=Path)
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
        model, image, label = network_and_image(parsed)
        spectrum = spectrum_of_last(model, image, label)
    except S3DError as error:
        sys.exit(f"error: {error}")
    seen = Seen(model, image)
    rho = torch.maximum(spectrum.lambda_min.abs(), spectrum.lambda_max.abs())
    active = [number for number in rho.argsort(descending=True).tolist() if float(seen.picture(number).norm()) > 0]
    if not active:
        sys.exit("error: image: expected one in which some filter sees something, got none")
    shown = list(dict.fromkeys(active[: parsed.shown] + active[-parsed.shown :]))
    draw([change(seen, spectrum, number, parsed.epsilon) for number in shown], rho, parsed.out / "filters.png")
    some = torch.randperm(len(active), generator=torch.Generator().manual_seed(parsed.seed))[: parsed.measured]
    numbers = sorted(active[i] for i in some.tolist())
    correlation, p_value = measure(seen, spectrum, numbers, parsed.epsilon, parsed.out)
    title = "rank correlation of rho and the change of the picture"
    print(f"{title}: {correlation:.2f} (p = {p_value:.1g}, {len(numbers)} filters)")


if __name__ == "__main__":
    main()
