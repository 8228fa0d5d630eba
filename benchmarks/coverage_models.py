"""The models of the table of coverage: how each is built, and what it is run on.

Random weights, float64, evaluation mode, nothing downloaded. `coverage_models.yml` lists the models of libraries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from structures import STRUCTURES
from torch import Tensor, nn

LISTS = yaml.safe_load(Path(__file__).with_suffix(".yml").read_text())
ODD_SIZES = {"inception_v3": 299, "alexnet": 96, "vit_h": 70, "maxvit": 224}  # of torchvision's classifiers
DETECTORS = {"fasterrcnn": 64, "maskrcnn": 64, "retinanet": 64, "fcos": 64, "ssd300": 300, "ssdlite320": 320}


@dataclass(frozen=True)
class Case:
    """A model of the table."""

    family: str
    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], Any]  # for so many samples
    shown: str  # what a sample is
    # The module whose outputs are compared before and after growth. Detectors choose among boxes, which is no smooth
    # function, so what their heads say is compared instead.
    compared: Callable[[nn.Module], nn.Module] = field(default=lambda model: model)


class RawHeads(nn.Module):
    """A detector of torchvision as far as what its heads say, about proposals that are always the same."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: list[Tensor]) -> Any:
        """Return the raw outputs of all heads."""
        detector = self.detector
        batch, _ = detector.transform(images)
        features = detector.backbone(batch.tensors)
        features = {"0": features} if isinstance(features, Tensor) else features
        if not hasattr(detector, "rpn"):
            return detector.head(list(features.values()))
        box = [0.2, 0.1, 0.8, 0.7]
        boxes = [torch.tensor([box], dtype=images[0].dtype) * min(size) for size in batch.image_sizes]
        heads = detector.roi_heads
        outputs = [detector.rpn.head(list(features.values()))]
        outputs.append(heads.box_predictor(heads.box_head(heads.box_roi_pool(features, boxes, batch.image_sizes))))
        if heads.has_mask():
            seen = heads.mask_roi_pool(features, boxes, batch.image_sizes)
            outputs.append(heads.mask_predictor(heads.mask_head(seen)))
        return outputs


def all_cases() -> Iterator[Case]:
    """Yield every model of the table."""
    for name, (build, shapes) in STRUCTURES.items():
        random = partial(_random, shapes)
        yield Case("structures", name, build, random, ", ".join("x".join(map(str, shape[1:])) for shape in shapes))
    for name in LISTS["transformers"]:
        yield Case("transformers", name, partial(_transformer, name), partial(_tokens, name), _shown(name))
    for name, settings in LISTS["timm"].items():
        settings = settings if isinstance(settings, dict) else {"image": settings}
        size = settings["image"]
        more = {key: value for key, value in settings.items() if key != "image"}
        yield _of_images("timm", name, size, partial(_timm, name, more))
    for kind, names in LISTS["torchvision"].items():
        for name in names:
            yield _detector(name) if kind == "detection" else _of_images(kind, name, 64, partial(_torchvision, name))
    import torchvision

    for name in torchvision.models.list_models(module=torchvision.models):
        size = next((size for start, size in ODD_SIZES.items() if name.startswith(start)), 64)
        yield _of_images("torchvision", name, size, partial(_torchvision, name))


def _random(shapes: tuple[tuple[int, ...], ...], samples: int) -> Any:
    inputs = tuple(torch.randn(samples, *shape[1:], dtype=torch.float64) for shape in shapes)
    return inputs[0] if len(inputs) == 1 else inputs


def _of_images(family: str, name: str, size: int, build: Callable[[], nn.Module]) -> Case:
    return Case(family, name, build, partial(_random, ((1, 3, size, size),)), f"3x{size}x{size}")


def _torchvision(name: str) -> nn.Module:
    import torchvision

    settings: dict[str, Any] = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    if name in LISTS["torchvision"]["segmentation"]:
        settings = {"weights_backbone": None}
    if name.startswith("vit_"):  # which know their size
        settings = {"image_size": ODD_SIZES["vit_h"] if name.startswith("vit_h") else 64}
    return torchvision.models.get_model(name, weights=None, **settings)


def _detector(name: str) -> Case:
    import torchvision

    size = next(size for start, size in DETECTORS.items() if name.startswith(start))
    settings = {} if name.startswith("ssd") else {"min_size": size, "max_size": size}
    if "rcnn" in name:  # random weights find as many objects as may be found, where there are none
        settings["box_detections_per_img"] = 10
    build = partial(torchvision.models.get_model, name, weights=None, weights_backbone=None, num_classes=5, **settings)

    def images(samples: int) -> tuple[list[Tensor]]:
        return ([torch.rand(3, size, size, dtype=torch.float64) for _ in range(samples)],)

    return Case("detection", name, build, images, f"list of 3x{size}x{size}", RawHeads)


def _timm(name: str, settings: dict[str, Any]) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, **settings)


def _transformer(name: str) -> nn.Module:
    import transformers

    listed = LISTS["transformers"][name]
    config = getattr(transformers, listed["config"])(**listed["settings"])
    return getattr(transformers, listed["model"])(config)


def _tokens(name: str, samples: int) -> dict[str, Tensor]:
    inputs = {}
    for key, shape in LISTS["transformers"][name]["inputs"].items():
        tokens = key.endswith("input_ids")
        shape = (samples, *shape)
        inputs[key] = torch.randint(3, 60, shape) if tokens else torch.randn(shape, dtype=torch.float64)
    return inputs


def _shown(name: str) -> str:
    inputs = LISTS["transformers"][name]["inputs"]
    return ", ".join(
        f"{shape[0]} tokens" if key.endswith("input_ids") else "x".join(map(str, shape))
        for key, shape in inputs.items()
    )
