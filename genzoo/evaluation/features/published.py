"""Networks trained on natural photographs as feature extractors: Inception-v3 and DINOv2, where their weights lie on
this machine.

    inception   the pool layer of 2,048 features that FID is defined by (Heusel et al. 2017), as torch-fidelity has it;
                without torch-fidelity torchvision's network of the same shape, whose figures are others
    dinov2      the class token of ViT-S/14, 384 features (Oquab et al. 2023; recommended by Stein et al. 2023)

They are asked for by name and never needed; nothing is downloaded. What they know of photographs says little of
digits, and their widths need many images: the Fréchet distance of n real images from n others grows with width^2 / n.
"""

import importlib.util
import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.core.errors import GenzooError
from genzoo.evaluation.features.feature_space import FeatureSpace, bytes_hash

PHOTOGRAPHS = 32
"""Images that go through at once: they are enlarged to hundreds of pixels."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of red, green and blue in [0, 1] that networks of ImageNet expect."""
FIDELITY_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
TORCHVISION_WEIGHTS = "inception_v3_google-0cc3c7bd.pth"
DINOV2 = "vit_small_patch14_dinov2.lvd142m"


def inception_space(levels: int) -> FeatureSpace:
    """Inception's pool features of images with so many levels; colours of grey images are equal.

    Raises `GenzooError` where no weights are on this machine.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if (folder / FIDELITY_WEIGHTS).is_file() and importlib.util.find_spec("torch_fidelity"):
        return _fidelity_space(folder / FIDELITY_WEIGHTS, levels)
    if (folder / TORCHVISION_WEIGHTS).is_file():
        return _torchvision_space(folder / TORCHVISION_WEIGHTS, levels)
    raise GenzooError(
        f"--features inception needs weights that are not on this machine: put torch-fidelity's {FIDELITY_WEIGHTS} (or "
        f"torchvision's {TORCHVISION_WEIGHTS}) into {folder}, or leave --features out"
    )


def dinov2_space(levels: int) -> FeatureSpace:
    """DINOv2's class token of images with so many levels, enlarged to 224 pixels.

    Raises `GenzooError` where timm or the weights are not on this machine.
    """
    path = _kept_by_hub(f"timm/{DINOV2}", "model.safetensors") if importlib.util.find_spec("timm") else None
    if path is None:
        raise GenzooError(
            "--features dinov2 needs timm and its weights on this machine: pip install timm, then once "
            f"`timm.create_model({DINOV2!r}, pretrained=True)`; or leave --features out"
        )
    import timm  # pyright: ignore[reportMissingImports]

    local = {"file": str(path), "hf_hub_id": None}
    network = timm.create_model(
        DINOV2, pretrained=True, pretrained_cfg_overlay=local, img_size=224, num_classes=0
    )
    return _photograph_space("dinov2", path, network, 384, _prepared(levels, 224))


def _kept_by_hub(repository: str, file: str) -> Path | None:
    """Where Hugging Face's cache holds the file; None where it does not."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file)
    return Path(found) if isinstance(found, str) else None


def _fidelity_space(path: Path, levels: int) -> FeatureSpace:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    _plain_weights(path)  # the library itself would open a pickle of anything
    network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(path))
    return _photograph_space("inception", path, network, 2048, lambda x: as_photographs(x, levels))


def _torchvision_space(path: Path, levels: int) -> FeatureSpace:
    from torchvision.models import inception_v3

    # these weights were made for [-1, 1]; with transform_input the network undoes ImageNet's standardisation
    network = inception_v3(weights=None, transform_input=True, aux_logits=True, init_weights=False)
    network.load_state_dict(_plain_weights(path))
    network.fc = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    return _photograph_space("inception (torchvision)", path, network, 2048, _prepared(levels, 299))


def _plain_weights(path: Path) -> dict[str, Tensor]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise GenzooError(f"{path} cannot be read as weights ({str(error).splitlines()[0]})") from error


def _photograph_space(
    name: str, path: Path, network: nn.Module, width: int, prepared: Callable[[Tensor], Tensor]
) -> FeatureSpace:
    """The space of a network that gives `[n, width]`, or a tuple of that alone."""
    network.eval()

    def embed(images: Tensor) -> Tensor:
        answers = [network(prepared(part)) for part in images.cpu().split(PHOTOGRAPHS)]
        return torch.cat([a[0] if isinstance(a, tuple) else a for a in answers])

    return FeatureSpace(name, bytes_hash(path.read_bytes()), width, embed)


def as_photographs(images: Tensor, levels: int) -> Tensor:
    """Integer images `[n, c, h, w]` as uint8 RGB `[n, 3, h, w]` in 0 .. 255; of other than three channels the first.

    >>> as_photographs(torch.tensor([[[[0, 16]]]]), levels=17).flatten().tolist()
    [0, 255, 0, 255, 0, 255]
    """
    x = (images.double() * (255 / (levels - 1))).round().to(torch.uint8)
    return x if x.shape[1] == 3 else x[:, :1].expand(-1, 3, -1, -1)


def _prepared(levels: int, side: int) -> Callable[[Tensor], Tensor]:
    """What networks of ImageNet see of images: enlarged by antialiased bicubic resampling, standardised."""
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in IMAGENET)

    def prepared(images: Tensor) -> Tensor:
        x = as_photographs(images, levels).float() / 255
        x = F.interpolate(x, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
        return (x - mean) / deviation

    return prepared
