"""Helpers of the tests: seeded generators, models and images."""

import torch


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def built(config, spec, seed=0, spread=0.0):
    """A model with weights from a seed, with noise of size `spread` on what starts at zero; in evaluation mode."""
    torch.manual_seed(seed)
    model = config.build(spec)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(spread * torch.randn_like(p))
    return model.eval()


def images(n, spec, seed=0):
    """Uniformly random ones, uint8 `[n, *spec.shape]`."""
    return torch.randint(spec.levels, (n, *spec.shape), generator=rng(seed)).to(torch.uint8)
