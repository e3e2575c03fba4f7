"""How networks are run: how much goes through one at once outside of training, in which precision, for whom."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call

MOST_ROWS = 256
MOST_PARAMETERS = 2**23


def slices(n: int, size: int) -> Iterator[slice]:
    """0 .. n-1 in parts of at most `size`.

    >>> list(slices(5, 3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def decodings_per_pass(parameters: int) -> int:
    """How many images of so many output `parameters` each are decoded at once.

    >>> decodings_per_pass(784), decodings_per_pass(3072 * 30)
    (256, 91)
    """
    return max(1, min(MOST_ROWS, MOST_PARAMETERS // parameters))


def runs_in_bf16(precision: str, device: torch.device) -> bool:
    """Whether a network runs under bf16 autocast: "auto" says yes where that pays.

    It pays on CPUs with AMX tiles and on GPUs with bf16; elsewhere CPUs emulate it slowly.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)  # absent in some builds
    return bool(supported and supported())


def frozen(network: nn.Module) -> Callable[..., Tensor]:
    """`network` as a function whose own parameters get no gradient; what goes in does.

    The flags of the parameters stay as they are: a wrapper for several processes may be watching them.
    """
    weights = {name: p.detach() for name, p in network.named_parameters()}
    return lambda *inputs: functional_call(network, weights, inputs)
