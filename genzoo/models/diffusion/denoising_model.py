"""Diffusion and flow matching: one network that tells data from noise along a Gaussian path.

    x_t = alpha(t) x + sigma(t) eps                                            (t = 0 data, t = 1 noise)
    loss            E_t E_eps w(t) |y - y_hat(x_t, t)|^2,  y = a x + b eps
    sample          from N(0, sigma(1)^2) back along dx_t = x_hat d alpha + eps_hat d sigma, with or without new noise
    log_likelihood  the variational bound (Kingma et al. 2021), or the probability-flow ODE (Song et al. 2021)

The families are rows of a table; every column is an object of the configuration:

    family                           path           target    weighting  times        sampler
    DDPM (Ho et al. 2020)            DiscreteBetas  noise     simple     stratified   ancestral, DDIM, multistep
    improved DDPM, v (Salimans 2022) VPCosine       v         target     stratified   multistep
    VDM (Kingma et al. 2021)         VPCosine       levels    ELBO       log-SNR      ancestral
    EDM (Karras et al. 2022)         VE             EDM's F   target     log-normal   Heun
    flow matching (Lipman 2023)      Linear         velocity  target     logit-normal Heun, multistep
    OT flow (Tong et al. 2024)       the same, its noise paired with the images by optimal transport
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from typing_extensions import override

from genzoo.core.bounds import BelowOne, Positive
from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.passes import decodings_per_pass, runs_in_bf16, slices
from genzoo.core.spec import Batch, DataSpec, check_images
from genzoo.core.trainable import Loss, evaluating
from genzoo.models.base import GenerativeModel, ModelConfig
from genzoo.models.diffusion.samplers.base_sampler import is_clean
from genzoo.models.diffusion.samplers.editing import impute, invert
from genzoo.models.diffusion.samplers.guidance import guided
from genzoo.models.diffusion.samplers.sampling import Sampling
from genzoo.models.diffusion.samplers.solvers import AdamsMoulton, Ancestral
from genzoo.models.diffusion.samplers.time_grids import LogSNRGrid
from genzoo.models.imputation import check_missing
from genzoo.nn.conv_unet import ConvUNetConfig
from genzoo.nn.denoiser_network import DenoiserConfig
from genzoo.nn.embeddings import COND_WIDTH, Condition, check_condition, condition_width
from genzoo.nn.latent_paths import interpolate_spherically
from genzoo.objectives.denoising.couplings import Coupling, Independent
from genzoo.objectives.denoising.levels import expected_levels
from genzoo.objectives.denoising.noise_conditioning import NoiseConditioning, TimeConditioning
from genzoo.objectives.denoising.paths import (
    DataTarget,
    Denoiser,
    GaussianPath,
    Prediction,
    Target,
    VPCosine,
    VTarget,
    append_dims,
    to_prediction,
)
from genzoo.objectives.denoising.times import Importance, StratifiedTimes, TimeSampler
from genzoo.objectives.denoising.weighting import TargetWeighting, Weighting, denoising_loss
from genzoo.objectives.elbo import normal_noise
from genzoo.objectives.likelihood.diffusion_bound import BoundProtocol
from genzoo.objectives.likelihood.protocol import Protocol, measured
from genzoo.objectives.scale import Scale


@dataclass(frozen=True)
class DiffusionConfig(ModelConfig):
    """A row of the table."""

    path: GaussianPath = field(default_factory=VPCosine)
    """alpha and sigma."""
    target: Target = field(default_factory=VTarget)
    """What the network predicts."""
    levels_head: bool = False
    """The network predicts a distribution over the levels instead (`objectives.levels`): for likelihood."""
    weighting: Weighting = field(default_factory=TargetWeighting)
    """Which noise levels matter how much."""
    times: TimeSampler | Importance = field(default_factory=StratifiedTimes)
    """The timestep distribution of training."""
    t_min: BelowOne = 0.0
    """The smallest of them, if the path has no larger one of its own."""
    coupling: Coupling = field(default_factory=Independent)
    """Which noise goes with which image."""
    dequantised: bool = False
    """Training images are dequantised uniformly within their bins, as the ODE likelihood wants them."""
    network: DenoiserConfig = field(default_factory=ConvUNetConfig)
    """The network."""
    c_noise: NoiseConditioning = field(default_factory=TimeConditioning)
    """Noise conditioning: what the network sees of the time."""
    scale_input: bool = False
    """Its input is divided by the standard deviation that x_t has if data have `sigma_data`."""
    sigma_data: Positive = 0.5
    """Standard deviation of the data, where the range of an image is 2."""
    cond_dropout: BelowOne = 0.1
    """Probability of dropping the condition in training (classifier-free guidance)."""
    sampling: Sampling = field(default_factory=Sampling)
    """How `sample` goes about it."""
    protocol: Protocol = field(default_factory=BoundProtocol)
    """How `log_likelihood` is come by."""
    training: TrainConfig = field(default_factory=TrainConfig)

    def build(self, spec: DataSpec) -> "Diffusion":
        """Raises `GenzooError` where the parts do not go with the data."""
        if spec.levels is None and (self.levels_head or self.protocol.kind is LikelihoodKind.LOWER_BOUND):
            raise GenzooError(
                "real-valued data have no levels: use levels_head=False and protocol=OdeProtocol()"
            )
        self.sampling.check(self.path)  # what could not be had is told before it is trained
        self.protocol.check(self.path)
        per_channel = spec.levels if self.levels_head and spec.levels else 1
        return Diffusion(
            spec, self, self.network.build(spec.shape, spec.shape[0] * per_channel, condition_width(spec))
        )


class Diffusion(GenerativeModel):
    """A path, and a network that sees through the noise on it."""

    no_mean = "its sampler ends at a clean image, whose pixels are not drawn once more"
    config: DiffusionConfig

    def __init__(self, spec: DataSpec, config: DiffusionConfig, network: nn.Module) -> None:
        super().__init__()
        self.spec, self.config, self.path, self.network = spec, config, config.path, network
        self.scale = Scale(spec)
        self.target = DataTarget() if config.levels_head else config.target
        self.condition, self.times = Condition(spec), config.times.build()
        self.null = nn.Parameter(torch.zeros(COND_WIDTH)) if spec.cond and config.cond_dropout else None
        outputs = spec.dims * (spec.levels if config.levels_head and spec.levels else 1)
        self.chunk = decodings_per_pass(outputs)
        """Images per pass outside of training: bounds memory."""

    @property
    @override
    def likelihood(self) -> LikelihoodKind:
        return self.config.protocol.kind

    # --- the network ---------------------------------------------------------------------------------------

    def predict(self, x_t: Tensor, t: Tensor, embedded: Tensor | None) -> Tensor:
        """y_hat `[b, ...]` of x_t `[b, ...]` at times float64 `[b]`; `embedded` is the condition `[b, 64]` or None."""
        at = self.path.at(t)
        x_in = x_t
        if self.config.scale_input:
            x_in = x_t / append_dims((at.sigma**2 + (at.alpha * self.config.sigma_data) ** 2).sqrt(), x_t)
        y = self.network(x_in, self.config.c_noise(self.path, t).to(x_t.dtype), embedded)
        if self.config.levels_head and self.spec.levels:
            return expected_levels(y, x_t, at, self.spec.levels)
        return y.to(torch.promote_types(x_t.dtype, torch.float32))

    def denoiser(self, embedded: Tensor | None, precision: str = "fp32") -> Denoiser:
        """The network as samplers and likelihoods know it; `embedded` is the condition `[b, 64]` or None."""
        device = self.device.type
        bf16 = runs_in_bf16(precision, self.device)

        def denoise(x_t: Tensor, t: Tensor) -> Prediction:
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                y = self.predict(x_t, t, embedded)
            return to_prediction(x_t, y, self.path.at(t), self.target)

        return denoise

    # --- loss ----------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, turn: str = "model", *, generator: torch.Generator | None = None) -> Loss:
        """w(t) |y - y_hat|^2 per dimension `[b]`; with the ELBO's weights, nats per dimension of the bound."""
        self.parameters_of(turn)
        images, n = check_images(batch.images, self.spec), len(batch.images)
        x = (
            self.scale.dequantise(images, generator)
            if self.config.dequantised
            else self.scale.centres(images)
        )
        labels = batch.cond if self.spec.cond == "class" else None
        eps = self.config.coupling.pair(x, normal_noise(x, generator), labels)
        t_min = max(self.config.t_min, self.path.t_min)
        drawn = self.times.draw(n, self.path, generator, t_min=t_min)
        embedded = self._partly_null(self.condition(batch.cond, n), generator)
        each = denoising_loss(
            lambda x_t, t: self.predict(x_t, t, embedded),
            x, self.path, self.target, self.config.weighting, drawn.times, eps,
        ) / self.spec.dims  # fmt: skip
        if self.training:
            self.times.update(drawn, each)
        return Loss(each * drawn.weights.to(each), {"error": each})

    def _partly_null(self, embedded: Tensor | None, generator: torch.Generator | None) -> Tensor | None:
        """In training some conditions are left out (Ho & Salimans 2022)."""
        if embedded is None or self.null is None or not self.training:
            return embedded
        device = embedded.device if generator is None else generator.device
        out = torch.rand(len(embedded), generator=generator, device=device) < self.config.cond_dropout
        return torch.where(out[:, None].to(embedded.device), self.null.to(embedded), embedded)

    # --- sample --------------------------------------------------------------------------------------------

    def sample(
        self, n: int, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Samples `[n, *spec.shape]` as `config.sampling` says."""
        return self.draw(n, cond, generator=generator)

    def draw(
        self,
        n: int,
        cond: Tensor | None = None,
        *,
        sampling: Sampling | None = None,
        weaker: "Diffusion | None" = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Samples `[n, *spec.shape]` by another `sampling` than the configuration's.

        With guidance other than 1 a conditional model leads away from itself without the condition; any model from
        `weaker`, a smaller or less trained one of the same data (Karras et al. 2024, "Guiding a Diffusion Model
        with a Bad Version of Itself"). Raises `GenzooError` where there is neither.
        """
        cond = self.condition.or_drawn(cond, n, generator)
        return self.decode(
            self.noise(n, generator), cond, sampling=sampling, weaker=weaker, generator=generator
        )

    def noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """x_1 `[n, *spec.shape]` ~ N(0, sigma(1)^2)."""
        x = torch.zeros(n, *self.spec.shape, device=self.device)
        return self.path.at(torch.ones((), dtype=torch.float64)).sigma.to(x) * normal_noise(x, generator)

    def decode(
        self,
        x_1: Tensor,
        cond: Tensor | None = None,
        *,
        sampling: Sampling | None = None,
        weaker: "Diffusion | None" = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Images `[n, *spec.shape]` from `x_1` `[n, ...]` at the first time of the grid."""
        check_condition(cond, self.spec, len(x_1))
        sampling, parts = sampling or self.config.sampling, [x_1[:0]]
        with evaluating(self), evaluating(weaker or self):
            times = sampling.grid(self.path, sampling.steps)
            for part in slices(len(x_1), self.chunk):
                of_part = None if cond is None else cond[part]
                denoise = self._guided(of_part, part.stop - part.start, sampling, weaker)
                x = sampling.sampler.run(denoise, self.path, times, x_1[part], generator)
                parts.append(self._without_noise(denoise, x, times[-1]))
        return self.scale.images(torch.cat(parts))

    def _without_noise(self, denoise: Denoiser, x: Tensor, last: Tensor) -> Tensor:
        """What the network sees in `x` where the path ends before the noise does."""
        if is_clean(self.path.at(last)):
            return x
        return denoise(x, last.to(x.device).expand(len(x))).x0

    def _guided(
        self, cond: Tensor | None, n: int, sampling: Sampling, weaker: "Diffusion | None"
    ) -> Denoiser:
        conditional = self.denoiser(self.condition(cond, n), sampling.precision)
        if sampling.guidance == 1.0:
            return conditional
        if weaker is not None:
            if weaker.path != self.path or weaker.spec.shape != self.spec.shape:
                raise GenzooError("a weaker model must be of the same path and of images of the same shape")
            own = weaker.condition(None if weaker.spec.cond is None else cond, n)
            without = weaker.denoiser(own, sampling.precision)
        elif self.null is not None:
            without = self.denoiser(self.null.expand(n, -1), sampling.precision)
        else:
            raise GenzooError(
                "guidance needs a condition to lead away from: train with --cond class and cond_dropout > 0, or give a "
                "weaker model"
            )
        return guided(conditional, without, sampling.guidance, (sampling.guidance_from, sampling.guidance_to))

    def denoising_picture(
        self,
        n: int,
        cond: Tensor | None = None,
        *,
        columns: int = 9,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """`[2 n, columns, *spec.shape]`: how `n` samples come about, over the network's calls from left to right.

        A pair of rows for each: x_t, shrunk to the range of images, and what the network sees in it.
        """
        cond, frames = self.condition.or_drawn(cond, n, generator), list[Tensor]()
        sampling = self.config.sampling
        with evaluating(self):
            denoise = self._guided(cond, n, sampling, None)

            def watched(x_t: Tensor, t: Tensor) -> Prediction:
                prediction, at = denoise(x_t, t), self.path.at(t)
                frames.append(
                    torch.stack([x_t / append_dims(at.alpha + at.sigma, x_t), prediction.x0.to(x_t)], 1)
                )
                return prediction

            times = sampling.grid(self.path, sampling.steps)
            x = sampling.sampler.run(watched, self.path, times, self.noise(n, generator), generator)
            x = self._without_noise(denoise, x, times[-1])
        frames.append(torch.stack([x, x], 1))
        shown = torch.linspace(0, len(frames) - 1, columns).round().long()
        picture = torch.stack([frames[i] for i in shown], 2).flatten(0, 2)
        return self.scale.images(picture).view(2 * n, columns, *self.spec.shape)

    # --- images in, images out -----------------------------------------------------------------------------

    def vary(
        self,
        images: Tensor,
        strength: float = 0.5,
        cond: Tensor | None = None,
        *,
        sampling: Sampling | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Variations `[n, ...]` of `images`: noised to time `strength` in (0, 1], and led back (SDEdit, Meng 2022)."""
        check_images(images, self.spec)
        if not 0 < strength <= 1:
            raise GenzooError(
                f"the strength of a variation must lie above 0 and be at most 1, got {strength}"
            )
        sampling = sampling or self.config.sampling
        sampling = replace(sampling, grid=replace(sampling.grid, start=strength))  # pyright: ignore
        x = self.scale.centres(images.to(self.device))
        start = torch.full((), strength, dtype=torch.float64)
        x_t = self.path.mix(x, normal_noise(x, generator), start)
        return self.decode(x_t, cond, sampling=sampling, generator=generator)

    def encode(self, images: Tensor, cond: Tensor | None = None, *, steps: int = 100) -> Tensor:
        """The noise x_1 `[n, ...]` from which the ODE leads to `images`: DDIM inversion, by the multistep solver."""
        check_images(images, self.spec)
        check_condition(cond, self.spec, len(images))
        with evaluating(self):
            x, parts = self.scale.centres(images.to(self.device)), []
            times = LogSNRGrid(last=max(self.path.t_min, 1e-4))(self.path, steps)
            for part in slices(len(x), self.chunk):
                of_part = None if cond is None else cond[part]
                denoise = self.denoiser(self.condition(of_part, part.stop - part.start))
                alpha = self.path.at(times[-1]).alpha.to(x)
                parts.append(invert(AdamsMoulton(), denoise, self.path, times, alpha * x[part]))
        return torch.cat(parts) if parts else x

    def interpolate(
        self, x_0: Tensor, x_1: Tensor, n: int, cond: Tensor | None = None, *, steps: int = 100
    ) -> Tensor:
        """`[b, n, *spec.shape]`: images along the great circle between the noises of `x_0` and `x_1` `[b, ...]`."""
        z_0, z_1 = (self.encode(x, cond, steps=steps) for x in (x_0, x_1))
        z = interpolate_spherically(z_0.flatten(1), z_1.flatten(1), n)
        repeated = None if cond is None else cond.repeat_interleave(n, 0)
        sampling = Sampling(steps=steps, precision="fp32")
        images = self.decode(z.reshape(-1, *self.spec.shape), repeated, sampling=sampling)
        return images.view(len(x_0), n, *self.spec.shape)

    def impute(
        self,
        images: Tensor,
        missing: Tensor,
        cond: Tensor | None = None,
        *,
        steps: int = 80,
        resamplings: int = 10,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """`images` `[n, ...]` with the pixels where `missing` (bool, broadcastable) is True drawn anew.

        By RePaint, see `genzoo.models.diffusion.samplers.editing.impute`: the more `steps` and `resamplings`, the
        better the new pixels fit the known; the network is called steps * resamplings times.
        """
        check_images(images, self.spec)
        check_condition(cond, self.spec, len(images))
        missing, sampling = check_missing(missing, images), self.config.sampling
        filled = [images[:0]]
        with evaluating(self):
            times = sampling.grid(self.path, steps)
            for part in slices(len(images), self.chunk):
                of_part, gaps = None if cond is None else cond[part], missing[part].to(self.device)
                denoise = self._guided(of_part, len(gaps), sampling, None)
                x = impute(
                    Ancestral(), denoise, self.path, times, self.scale.centres(images[part].to(self.device)), gaps,
                    resamplings=resamplings, generator=generator,
                )  # fmt: skip
                drawn = self.scale.images(self._without_noise(denoise, x, times[-1]))
                filled.append(torch.where(gaps, drawn, images[part].to(drawn)))
        return torch.cat([part.to(filled[-1]) for part in filled])

    # --- likelihood ----------------------------------------------------------------------------------------

    def log_likelihood(
        self, images: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> LogLikelihood:
        """By the configuration's protocol, in nats, with its Monte-Carlo error.

        Without `cond` a class-conditional model sums over its classes.
        """
        check_images(images, self.spec)
        with evaluating(self):
            return measured(self, self.config.protocol, images, cond, generator)
