"""Shortcut models: a flow that is told how far to step, and so draws in one to four network calls.

    x_t = (1 - t) x + t eps                                                  (t = 0 data, t = 1 noise)
    s(x_t, t, d)    average velocity of the flow from t back to t - d
    loss            E |s(x_t, t, 0) - (eps - x)|^2                           three quarters of a batch: flow matching
                    E |s(x_t, t, d) - average of two half steps|^2           one quarter: self-consistency
    sample          x_{t-d} = x_t - d s(x_t, t, d) from N(0, I), with d = 1 / steps
    log_likelihood  the probability-flow ODE of s(x_t, t, 0)                 (Chen et al. 2018; Lipman et al. 2023)

Frans, Hafner, Levine & Abbeel 2024, "One Step Diffusion via Shortcut Models". Unlike distillation there is one
training run and one network. Half steps are taken by the network itself, without gradients and dropout, where the
paper uses an average of its weights.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from typing_extensions import override

from genzoo.core.bounds import Many, Share
from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.passes import decodings_per_pass, slices
from genzoo.core.spec import Batch, DataSpec, check_images
from genzoo.core.trainable import Loss, evaluating
from genzoo.models.base import GenerativeModel, ModelConfig
from genzoo.nn.conv_unet import ConvUNetConfig
from genzoo.nn.denoiser_network import DenoiserConfig, NoiseEmbedding
from genzoo.nn.embeddings import COND_WIDTH, Condition, condition_width
from genzoo.objectives.denoising.noise_conditioning import NoiseConditioning, TimeConditioning
from genzoo.objectives.denoising.paths import (
    Denoiser,
    GaussianPath,
    Linear,
    Prediction,
    VelocityTarget,
    to_prediction,
)
from genzoo.objectives.denoising.shortcut_objective import (
    AverageVelocity,
    Stretches,
    bootstrap_target,
    check_power_of_two,
    draw_rows,
    draw_stretches,
    lead_back,
)
from genzoo.objectives.denoising.times import StratifiedTimes
from genzoo.objectives.elbo import normal_noise
from genzoo.objectives.likelihood.ode import OdeProtocol
from genzoo.objectives.likelihood.protocol import Protocol, measured
from genzoo.objectives.scale import Scale


@dataclass(frozen=True)
class ShortcutConfig(ModelConfig):
    """How far to step, and by which network."""

    network: DenoiserConfig = field(default_factory=ConvUNetConfig)
    """The network."""
    c_noise: NoiseConditioning = field(default_factory=TimeConditioning)
    """Noise conditioning: what the network sees of the time."""
    calls: int = 4
    """Network calls for a sample: a power of two up to `finest`."""
    finest: Many = 128
    """The most steps: 1 / finest is the length that counts as an instant, a power of two."""
    bootstrap_fraction: Share = 0.25
    """Share of a batch that learns self-consistency."""
    dequantised: bool = True
    """Training images are dequantised uniformly within their bins, as the ODE likelihood wants them."""
    protocol: Protocol = field(default_factory=lambda: OdeProtocol(draws=2))
    """How `log_likelihood` is come by; two draws tell the Monte-Carlo error."""
    training: TrainConfig = field(default_factory=TrainConfig)

    def build(self, spec: DataSpec) -> "Shortcut":
        """Raises `GenzooError` where the numbers or the parts do not go together."""
        check_power_of_two(self.finest, "finest")
        check_power_of_two(self.calls, "calls", self.finest)
        if self.finest < 2 or not 0 < self.bootstrap_fraction < 1:
            raise GenzooError("a shortcut model needs finest >= 2 and a bootstrap_fraction between 0 and 1")
        if spec.levels is None and self.protocol.kind is LikelihoodKind.LOWER_BOUND:
            raise GenzooError("real-valued data have no levels: use protocol=OdeProtocol()")
        self.protocol.check(Linear())
        return Shortcut(spec, self, self.network.build(spec.shape, spec.shape[0], COND_WIDTH))


class Shortcut(GenerativeModel):
    """The straight path, and a network that knows where steps of any length along its flow lead."""

    no_mean = "its sampler ends at a clean image, whose pixels are not drawn once more"
    config: ShortcutConfig

    def __init__(self, spec: DataSpec, config: ShortcutConfig, network: nn.Module) -> None:
        super().__init__()
        self.spec, self.config, self.network = spec, config, network
        self.target, self.scale = VelocityTarget(), Scale(spec)
        self.path: GaussianPath = Linear()
        self.condition = Condition(spec)
        self.length = NoiseEmbedding(COND_WIDTH, condition_width(spec))
        """Length and condition as the one vector that any network takes for a condition."""
        self.chunk = decodings_per_pass(spec.dims)
        """Images per pass outside of training: bounds memory."""

    @property
    @override
    def likelihood(self) -> LikelihoodKind:
        return self.config.protocol.kind

    # --- the network ---------------------------------------------------------------------------------------

    def average(self, embedded: Tensor | None) -> AverageVelocity:
        """s for images whose conditions are `embedded` `[b, 64]`, or None."""

        def average(x_t: Tensor, t: Tensor, d: Tensor) -> Tensor:
            embedded_length = self.length(self.c_length(d), embedded)
            y = self.network(x_t, self.config.c_noise(self.path, t).to(x_t.dtype), embedded_length)
            return y.to(torch.promote_types(x_t.dtype, torch.float32))

        return average

    def c_length(self, d: Tensor) -> Tensor:
        """0 for an instant; even in log d above, up to 1000 for d = 1."""
        doublings = (d * self.config.finest).clamp(min=1).log2()
        return 1000 * doublings / (self.config.finest.bit_length() - 1)

    def denoiser(self, embedded: Tensor | None) -> Denoiser:
        """The instantaneous velocity as likelihoods, and any other sampler, know it."""
        average = self.average(embedded)

        def denoise(x_t: Tensor, t: Tensor) -> Prediction:
            return to_prediction(x_t, average(x_t, t, torch.zeros_like(t)), self.path.at(t), self.target)

        return denoise

    # --- loss ----------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, turn: str = "model", *, generator: torch.Generator | None = None) -> Loss:
        """|s - target|^2 per dimension `[b]`; each part is scaled so that its mean is that over its own share."""
        self.parameters_of(turn)
        n, images = len(batch.images), check_images(batch.images, self.spec)
        x = (
            self.scale.dequantise(images, generator)
            if self.config.dequantised
            else self.scale.centres(images)
        )
        eps = normal_noise(x, generator)
        rows = draw_rows(n, self.config.bootstrap_fraction, generator).to(x.device)
        times, lengths = self._stretches(rows, generator)
        x_t, embedded = self.path.mix(x, eps, times), self.condition(batch.cond, n)
        predicted = self.average(embedded)(x_t, times, lengths)
        target = self.target.of(x, eps, self.path.at(times)).to(predicted)
        if rows.any():
            bootstrapped = Stretches(times[rows], lengths[rows])
            of_rows = None if embedded is None else embedded[rows]
            target[rows] = self._bootstrap(x_t[rows], bootstrapped, of_rows).to(target)
        each = (predicted - target).square().flatten(1).sum(1) / self.spec.dims
        return Loss(each, {"flow": _of_share(each, ~rows), "consistency": _of_share(each, rows)})

    def _bootstrap(self, x_t: Tensor, stretches: Stretches, embedded: Tensor | None) -> Tensor:
        """Asked without dropout."""
        with evaluating(self):
            return bootstrap_target(self.average(embedded), x_t, stretches, self.config.finest)

    def _stretches(self, rows: Tensor, generator: torch.Generator | None) -> Stretches:
        """Of the dyadic grid for `rows`, instants at uniform times for all else."""
        n, device = len(rows), rows.device
        instants = StratifiedTimes().draw(n, self.path, generator).times.to(device)
        times, lengths = (part.to(device) for part in draw_stretches(n, self.config.finest, generator))
        return Stretches(torch.where(rows, times, instants), torch.where(rows, lengths, 0.0))

    # --- sample --------------------------------------------------------------------------------------------

    def sample(
        self, n: int, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Samples `[n, *spec.shape]` in `config.calls` network calls."""
        return self.draw(n, cond, generator=generator)

    def draw(
        self,
        n: int,
        cond: Tensor | None = None,
        *,
        steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Samples `[n, *spec.shape]` in 1, 2, 4 ... `config.finest` steps, one network call each.

        Raises `GenzooError` for another number of steps.
        """
        cond = self.condition.or_drawn(cond, n, generator)
        return self.decode(self.noise(n, generator), cond, steps=steps)

    def noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """x_1 `[n, *spec.shape]` ~ N(0, 1)."""
        return normal_noise(torch.zeros(n, *self.spec.shape, device=self.device), generator)

    def decode(self, x_1: Tensor, cond: Tensor | None = None, *, steps: int | None = None) -> Tensor:
        """Images `[n, *spec.shape]` to which so many steps lead from `x_1` `[n, ...]`.

        Raises `GenzooError` for another number of steps than 1, 2, 4 ... `config.finest`.
        """
        steps = check_power_of_two(self.config.calls if steps is None else steps, "steps", self.config.finest)
        with evaluating(self):
            embedded, parts = self.condition(cond, len(x_1)), [x_1[:0]]
            for part in slices(len(x_1), self.chunk):
                average = self.average(None if embedded is None else embedded[part])
                parts.append(lead_back(average, x_1[part], steps, self.config.finest))
        return self.scale.images(torch.cat(parts))

    def denoising_picture(
        self, n: int, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """`[n, columns, *spec.shape]`: what comes of the same noise in 1, 2, 4 ... `config.finest` network calls."""
        cond = self.condition.or_drawn(cond, n, generator)
        noise = self.noise(n, generator)
        counts = [2**i for i in range(self.config.finest.bit_length())]
        return torch.stack([self.decode(noise, cond, steps=steps) for steps in counts], 1)

    # --- likelihood ----------------------------------------------------------------------------------------

    def log_likelihood(
        self, images: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> LogLikelihood:
        """By the configuration's protocol, in nats, with its Monte-Carlo error; that of the flow, not of few steps.

        Without `cond` a class-conditional model sums over its classes.
        """
        check_images(images, self.spec)
        with evaluating(self):
            return measured(self, self.config.protocol, images, cond, generator)


def _of_share(each: Tensor, rows: Tensor) -> Tensor:
    """`each` `[b]` where `rows`, else 0, such that the mean over all is the mean over `rows` (0 if there are none)."""
    return torch.where(rows, each.detach(), 0.0) * (len(rows) / rows.sum().clamp(min=1))
