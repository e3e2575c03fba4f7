"""Networks trained on natural photographs as feature extractors: Inception-v3 and DINOv2, where their weights lie on
this machine.

    inception   the pool layer of 2,048 features that FID is defined by (Heusel et al. 2017), with the weights of
                torch-fidelity or pytorch-fid; without them torchvision's network, whose figures are others
    dinov2      the class token of ViT-L/14 (recommended by Stein et al. 2023), else of ViT-B/14 or S/14, with the
                weights of the authors' hub or of timm

They are asked for by name, or by `--published` beside another extractor, and never needed; nothing is downloaded. What
they know of photographs says little of digits, and their widths need many images: the Fréchet distance of n real images
from n others grows with width^2 / n.
"""

import importlib.util
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from genzoo.core.errors import GenzooError
from genzoo.core.regular_files import sha256_of
from genzoo.evaluation.features.feature_space import DIGITS, FeatureSpace
from genzoo.evaluation.features.photograph_networks import (
    DINOV2_SIDE,
    INCEPTION_SIDE,
    dinov2,
    fid_inception,
    seen_by_imagenet,
    seen_by_inception,
    torchvision_inception,
)

PHOTOGRAPHS = 32
"""Images that go through at once: they are enlarged to hundreds of pixels."""
INCEPTION_WIDTH = 2048
FID_WEIGHTS = ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth")
"""One content under the names of torch-fidelity and pytorch-fid."""
TORCHVISION_WEIGHTS = "inception_v3_google-0cc3c7bd.pth"
DINOV2_SIZES = {"vitl14": (1024, 24, "large"), "vitb14": (768, 12, "base"), "vits14": (384, 12, "small")}
"""Width, depth and timm's word for each, the recommended one first."""
PUBLISHED = {"inception": "Inception-v3", "dinov2": "DINOv2"}
"""What `--features` and figures call the networks."""


def inception_space(levels: int, device: torch.device | str = "cpu") -> FeatureSpace:
    """Inception's pool features of images with so many levels; colours of grey images are equal.

    Raises `GenzooError` where no weights are on this machine, or they do not fit.
    """
    path = _inception_file()
    if path is None:
        raise GenzooError(
            f"Inception-v3 needs weights that are not on this machine: put {FID_WEIGHTS[0]} of torch-fidelity (or "
            f"torchvision's {TORCHVISION_WEIGHTS}) into {_hub()}, or leave the network out"
        )
    if path.name in FID_WEIGHTS:
        network, name = fid_inception(_weights(path), str(path)), "inception"
        return _space(name, path, network, INCEPTION_WIDTH, lambda x: seen_by_inception(x, levels), device)
    network, name = torchvision_inception(_weights(path), str(path)), "inception (torchvision)"
    prepared = partial(seen_by_imagenet, levels=levels, side=INCEPTION_SIDE)
    return _space(name, path, network, INCEPTION_WIDTH, prepared, device)


def dinov2_space(levels: int, device: torch.device | str = "cpu") -> FeatureSpace:
    """DINOv2's class token of images with so many levels, enlarged to 224 pixels.

    Raises `GenzooError` where no weights are on this machine, or they do not fit.
    """
    found = _dinov2_file()
    if found is None:
        names = ", ".join(f"dinov2_{size}_pretrain.pth" for size in DINOV2_SIZES)
        raise GenzooError(
            f"DINOv2 needs weights that are not on this machine: put one of {names} into {_hub()}, or leave the "
            "network out"
        )
    path, size = found
    width, depth, _ = DINOV2_SIZES[size]
    network = dinov2(_weights(path), str(path), width, depth)
    prepared = partial(seen_by_imagenet, levels=levels, side=DINOV2_SIDE)
    return _space(f"dinov2 {size}", path, network, width, prepared, device)


def published_spaces(levels: int, device: torch.device | str = "cpu") -> dict[str, FeatureSpace]:
    """The spaces of all networks whose weights are on this machine, by the names that `--features` has for them.

    Raises `GenzooError` where there are none, or where some do not fit.
    """
    found = {}
    if _inception_file() is not None:
        found["inception"] = inception_space(levels, device)
    if _dinov2_file() is not None:
        found["dinov2"] = dinov2_space(levels, device)
    if not found:
        raise GenzooError(
            f"--published needs weights that are not on this machine: put {FID_WEIGHTS[0]} of torch-fidelity or "
            f"dinov2_{next(iter(DINOV2_SIZES))}_pretrain.pth into {_hub()}, or leave --published out"
        )
    return found


# --- files -----------------------------------------------------------------------------------------------------


def _hub() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _inception_file() -> Path | None:
    return next((p for name in (*FID_WEIGHTS, TORCHVISION_WEIGHTS) if (p := _hub() / name).is_file()), None)


def _dinov2_file() -> tuple[Path, str] | None:
    """Weights of the largest network there are some of, and which that is."""
    for size, (_, _, word) in DINOV2_SIZES.items():
        own = _hub() / f"dinov2_{size}_pretrain.pth"
        path = own if own.is_file() else _of_timm(f"vit_{word}_patch14_dinov2.lvd142m")
        if path is not None:
            return path, size
    return None


def _of_timm(name: str) -> Path | None:
    """Where Hugging Face's cache holds these weights of timm; None where it does not."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(f"timm/{name}", "model.safetensors")
    return Path(found) if isinstance(found, str) else None


def _weights(path: Path) -> dict[str, Tensor]:
    """Raises `GenzooError` where the file holds no plain weights."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise GenzooError(f"{path} cannot be read as weights ({str(error).splitlines()[0]})") from error
    if not isinstance(found, dict):
        raise GenzooError(f"{path} cannot be read as weights (it holds a {type(found).__name__})")
    return found


def _space(
    name: str,
    path: Path,
    network: nn.Module,
    width: int,
    prepared: Callable[[Tensor], Tensor],
    device: torch.device | str,
) -> FeatureSpace:
    """The space of a network that gives `[n, width]`, or a tuple that begins with it."""
    network = network.to(device)

    def embed(images: Tensor) -> Tensor:
        parts = images.cpu().split(PHOTOGRAPHS)
        answers = [network(prepared(part).to(device)) for part in parts]
        return torch.cat([a[0] if isinstance(a, tuple) else a for a in answers])

    return FeatureSpace(name, sha256_of(path.resolve())[:DIGITS], width, embed)
