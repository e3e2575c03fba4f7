"""How tight is a VAE's reported bound? `python -m benchmarks.ais_audit RUN`.

Annealed importance sampling from the encoder's q(z|x) gives another stochastic lower bound on log P(x), tighter the
longer it anneals; where it lies well above the IWAE bound, the latter undersells the model (Wu et al. 2017). How far
AIS itself may be off is bounded on images that the model draws, whose latents are exact posterior samples: the
gap of bidirectional Monte Carlo (Grosse et al. 2015).
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

import genzoo
from genzoo.core.errors import GenzooError
from genzoo.models.run_data import data_of_run
from genzoo.models.vae.vector_vae import VAE
from genzoo.objectives.elbo import GaussianMixture
from genzoo.objectives.likelihood.annealing import (
    HMC,
    AnnealingPath,
    annealed_importance_sampling,
    bidirectional_monte_carlo,
)


def path_of(model: VAE, images: Tensor) -> AnnealingPath:
    """From q(z|x) to p(x, z) of `images` `[b, c, h, w]`; latents come as `[k, b, d]`."""
    q, p = model.encode(images), GaussianMixture(*model.prior(None, model.encoder))

    def log_likelihood(z: Tensor) -> Tensor:
        params = model.decode(z.flatten(0, 1))
        repeated = images.repeat(len(z), 1, 1, 1).long()
        return model.distribution.log_prob(params, repeated).flatten(1).sum(1).view(z.shape[:2])

    return AnnealingPath.from_encoder(
        lambda z: p.log_prob(z.flatten(0, 1)).view(z.shape[:2]),
        log_likelihood,
        lambda z: q.repeated(len(z)).log_prob(z.flatten(0, 1)).view(z.shape[:2]),
        lambda k, generator: q.repeated(k).sample(generator).view(k, len(images), -1),
    )


def simulated(model: VAE, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Latents `[n, d]` from the prior, and images `[n, c, h, w]` drawn given them."""
    z = GaussianMixture(*model.prior(None, model.encoder)).sample(n, generator)
    images = model.distribution.sample(model.decode(z), generator=generator)
    return z, images.to(torch.uint8)


def main() -> None:
    """Prints the IWAE bound, AIS and the BDMC gap of a run's model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the run folder of an unconditional vae")
    parser.add_argument("--images", type=int, default=20, help="test images, and as many simulated ones")
    parser.add_argument("--steps", type=int, default=200, help="temperature steps")
    parser.add_argument("--chains", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    model = genzoo.load(args.run).eval().requires_grad_(False)
    if not isinstance(model, VAE) or model.spec.cond is not None:
        raise GenzooError("the audit is for an unconditional vae")
    generator = torch.Generator().manual_seed(args.seed)
    data = data_of_run(args.run)
    if data is None:
        raise GenzooError(f"{args.run} does not say what it was trained on")
    images = data.load().test.images[: args.images]
    options = {"chains": args.chains, "steps": args.steps, "hmc": HMC(leapfrog_steps=5)}
    iwae = model.log_likelihood(images, generator=generator).nats
    ais = annealed_importance_sampling(path_of(model, images), **options, generator=generator)
    print(f"{len(images)} test images of {data.name}: IWAE-{model.samples} {iwae.mean():.3f} nats")
    print(f"AIS ({args.chains} chains, {args.steps} steps) {ais.nats.mean():.3f} nats")
    gain = ais.nats - iwae
    print(f"AIS - IWAE {gain.mean():.3f} ± {gain.std() / len(gain) ** 0.5:.3f} nats")
    z, drawn = simulated(model, args.images, generator)
    bounds = bidirectional_monte_carlo(path_of(model, drawn), z, **options, generator=generator)
    print(f"BDMC gap on {len(z)} simulated images: {bounds.gap:.3f} ± {bounds.gap_stderr:.3f} nats")


if __name__ == "__main__":
    main()
