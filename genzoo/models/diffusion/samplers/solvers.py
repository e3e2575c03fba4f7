"""Solvers of the reverse process: from x at times[0] to x at times[-1], whatever the path and the target.

Along a trajectory of the probability-flow ODE, with x^ and eps^ the data and noise that the network sees in x_t,

    dx_t = x^ d alpha + eps^ d sigma

Holding x^ and eps^ over a step gives DDIM, x_s = alpha_s x^ + sigma_s eps^, which is finite wherever alpha or sigma
is 0; the others improve on it. A step to or from a time without noise is always of this form: dsigma/dt may be
infinite there, the step to sigma = 0 lands on x^. Solvers do not turn gradients off; the caller does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor
from torchdiffeq import odeint
from typing_extensions import override

from genzoo.core.bounds import Positive, Share
from genzoo.core.errors import GenzooError
from genzoo.models.diffusion.samplers.base_sampler import (
    Sampler,
    ddim_step,
    descending_steps_of,
    is_clean,
    predict_at,
    signal_ratio,
    steps_of,
)
from genzoo.objectives.denoising.paths import Coefficients, Denoiser, GaussianPath, Prediction, velocity_of
from genzoo.objectives.elbo import normal_noise

_POINTS, _WEIGHTS = leggauss(10)
"""Gauss & Legendre's on -1..1: a quadratic times a sine, over at most a quarter turn, to float64's rounding."""


# --- of first order, with or without noise -------------------------------------------------------------------


@dataclass(frozen=True)
class Ancestral(Sampler):
    """Draws x_s from q(x_s | x_t, x = x^) (Ho et al. 2020, equations 6 and 7; Kingma et al. 2021, appendix A).

    With alpha_ts = alpha_t / alpha_s and sigma_ts^2 = sigma_t^2 - alpha_ts^2 sigma_s^2 on any path,

        mean = alpha_ts sigma_s^2 / sigma_t^2 x_t + alpha_s sigma_ts^2 / sigma_t^2 x^
        variance = sigma_ts^2 sigma_s^2 / sigma_t^2
    """

    upper: float = 0.0
    """Where the log-variance lies between the posterior's (0, "fixed small") and sigma_ts^2 (1, "fixed large")."""

    def __post_init__(self) -> None:
        if not 0 <= self.upper <= 1:
            raise GenzooError(f"Ancestral's upper must lie in 0..1, got {self.upper}")

    def run(
        self,
        denoise: Denoiser,
        path: GaussianPath,
        times: Tensor,
        x: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """One call per step; the last step adds no noise if it ends at sigma = 0."""
        for t, s in descending_steps_of(times):
            prediction, at_t, at_s = predict_at(denoise, x, t), path.at(t), path.at(s)
            kept = signal_ratio(at_t, at_s)
            x = (
                at_s.alpha * prediction.x0 + at_s.sigma * kept * prediction.eps
            )  # the mean above, with x_t put in
            if not is_clean(at_s):
                scale = at_s.sigma ** (1 - self.upper) * at_t.sigma**self.upper
                x = x + scale * (1 - kept**2).sqrt() * normal_noise(x, generator)
        return x


@dataclass(frozen=True)
class DDIM(Sampler):
    """x_s = alpha_s x^ + sqrt(sigma_s^2 - nu^2) eps^ + nu z, nu = eta times the posterior's standard deviation.

    Song, Meng & Ermon 2021, "Denoising Diffusion Implicit Models", equations 12 and 16, on any path. eta = 0 solves
    the probability-flow ODE, of order one; eta = 1 is `Ancestral()`.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise GenzooError(f"DDIM's eta must lie in 0..1, got {self.eta}")

    def run(
        self,
        denoise: Denoiser,
        path: GaussianPath,
        times: Tensor,
        x: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """One call per step; times may ascend where eta is 0."""
        for t, s in descending_steps_of(times) if self.eta else steps_of(times):
            prediction, at_s = predict_at(denoise, x, t), path.at(s)
            if self.eta == 0 or is_clean(at_s):
                x = ddim_step(prediction, at_s)
                continue
            share = self.eta**2 * (1 - signal_ratio(path.at(t), at_s) ** 2)
            noise = (1 - share).sqrt() * prediction.eps + share.sqrt() * normal_noise(x, generator)
            x = at_s.alpha * prediction.x0 + at_s.sigma * noise
        return x


@dataclass(frozen=True)
class Euler(Sampler):
    """x_s = x_t + (s - t) dx_t/dt: order one. On the linear path it is flow matching's sampler, and DDIM."""

    def run(
        self,
        denoise: Denoiser,
        path: GaussianPath,
        times: Tensor,
        x: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """One call per step; times may ascend."""
        for t, s in steps_of(times):
            prediction, at_t, at_s = predict_at(denoise, x, t), path.at(t), path.at(s)
            whole = is_clean(at_t) or is_clean(at_s)
            x = ddim_step(prediction, at_s) if whole else x + (s - t) * velocity_of(prediction, at_t)
        return x


# --- of higher order -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heun(Sampler):
    """The mean of the velocities at both ends of an Euler step: order two (Karras et al. 2022, algorithm 1).

    Steps are in t, so that the path matters: on `VE` they are geometric where Karras et al. step in sigma. A step to
    or from sigma = 0 is DDIM's, as theirs to 0 is Euler's.
    """

    def run(
        self,
        denoise: Denoiser,
        path: GaussianPath,
        times: Tensor,
        x: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Two calls per step, one where the step ends or starts at sigma = 0; times may ascend."""
        for t, s in steps_of(times):
            prediction, at_t, at_s = predict_at(denoise, x, t), path.at(t), path.at(s)
            if is_clean(at_t) or is_clean(at_s):
                x = ddim_step(prediction, at_s)
                continue
            velocity = velocity_of(prediction, at_t)
            guess = predict_at(denoise, x + (s - t) * velocity, s)
            x = x + (s - t) / 2 * (velocity + velocity_of(guess, at_s))
        return x

    def calls(self, steps: int) -> int:
        """2 n: one less where the last time has sigma = 0."""
        return 2 * steps


@dataclass(frozen=True)
class DPMSolverPP2M(Sampler):
    """DPM-Solver++(2M): order two at one call per step (Lu et al. 2022, algorithm 2, the midpoint form).

    The data prediction is taken as linear in lambda = log(alpha / sigma). Steps next to an infinite lambda, and the
    first one, are DDIM's; where lambda runs off to infinity within a few steps, the order falls to about 1.5.
    """

    def run(
        self,
        denoise: Denoiser,
        path: GaussianPath,
        times: Tensor,
        x: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """One call per step; times may ascend."""
        before: Prediction | None = None
        length_before = torch.tensor(torch.inf)
        for t, s in steps_of(times):
            prediction, at_t, at_s = predict_at(denoise, x, t), path.at(t), path.at(s)
            length = (path.log_snr(s) - path.log_snr(t)) / 2
            x = ddim_step(prediction, at_s)
            regular = length.isfinite() and length_before.isfinite() and not is_clean(at_s)
            if before is not None and regular:
                weight = at_s.alpha * (1 - signal_ratio(at_t, at_s)) * 0.5 * length / length_before
                x = x + weight * (prediction.x0 - before.x0)
            before, length_before = prediction, length
        return x


class _Node(NamedTuple):
    """What the network saw at one time of a multistep method."""

    angle: float
    prediction: Prediction


@dataclass(frozen=True)
class AdamsMoulton(Sampler):
    """A predictor-corrector multistep method of order three at one call per step, finite at both ends of any path.

    With w = x_t / |(alpha, sigma)| and the angle phi = atan(sigma / alpha), from 0 (data) to pi/2 (noise), every path
    is an arc: dw = x^ d cos(phi) + eps^ d sin(phi). x^ and eps^ are interpolated by polynomials in phi whose products
    with sine and cosine are integrated exactly. A predictor over two nodes (errors of h^3 a step) leads to the next
    time, where the network is called; a corrector then repeats the step over those nodes and the new one (h^4), with
    no second call. This is the scheme of UniPC (Zhao et al. 2023), which interpolates x^ in log(alpha / sigma).

    The first step has one node to predict from (h^2) and two to correct by (h^3): order three holds from the start,
    as it does not for Adams-Bashforth or DPM-Solver++(3M) behind a DDIM step. The last step is a prediction (h^3).
    """

    def run(
        self,
        denoise: Denoiser,
        path: GaussianPath,
        times: Tensor,
        x: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """One call per step; times may ascend."""
        nodes: list[_Node] = []
        w = before = torch.zeros_like(x)
        for t, s in steps_of(times):
            (angle, radius), (goal, goal_radius) = _polar(path.at(t)), _polar(path.at(s))
            node = _Node(angle, predict_at(denoise, x, t))
            w = x / radius
            if nodes:
                w = before + _arc([node, *nodes], nodes[0].angle, angle)
            nodes = [node, *nodes[:1]]
            before = w
            x = goal_radius * (w + _arc(nodes, angle, goal))
        return x


@dataclass(frozen=True)
class Dopri5(Sampler):
    """The probability-flow ODE by Dormand & Prince's adaptive pair of orders 5 and 4, through torchdiffeq.

    Of the times only the first and the last count. The error is the batch's root mean square, so that images of a
    batch share their steps. Where an end has sigma = 0 the ODE runs between sigma / alpha = `edge` and the other end,
    and a DDIM step joins them.
    """

    rtol: Positive = 1e-5
    atol: Positive = 1e-5
    edge: Share = 1e-3
    """sigma / alpha where the last step to (or the first step from) the data starts (or ends)."""

    def run(
        self,
        denoise: Denoiser,
        path: GaussianPath,
        times: Tensor,
        x: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """As many calls as the tolerances ask for; times may ascend."""
        ends = [t for pair in steps_of(times) for t in pair]
        noisy = [self._inside(path, t) for t in (ends[0], ends[-1])]
        if noisy[0] != ends[0]:
            x = ddim_step(predict_at(denoise, x, ends[0]), path.at(noisy[0]))
        if noisy[0] != noisy[1]:
            x = self._integrated(denoise, path, x, *noisy)
        return x if noisy[1] == ends[-1] else ddim_step(predict_at(denoise, x, noisy[1]), path.at(ends[-1]))

    @override
    def calls(self, steps: int) -> None:
        return None

    def _integrated(
        self, denoise: Denoiser, path: GaussianPath, x: Tensor, start: Tensor, end: Tensor
    ) -> Tensor:
        """torchdiffeq steps beyond the end and interpolates unless told; its trial for a first step still may."""
        low, high = min(start, end), max(start, end)

        def velocity(t: Tensor, x_t: Tensor) -> Tensor:
            t = t.double().cpu().clamp(low, high)
            return velocity_of(predict_at(denoise, x_t, t), path.at(t))

        ends, options = torch.stack([start, end]), {"step_t": end[None]}
        solution = odeint(velocity, x, ends, rtol=self.rtol, atol=self.atol, method="dopri5", options=options)
        return cast(Tensor, solution)[-1]

    def _inside(self, path: GaussianPath, t: Tensor) -> Tensor:
        at_t = path.at(t)
        return path.time_of(-2 * torch.log(torch.full_like(t, self.edge))) if is_clean(at_t) else t


# --- arcs -----------------------------------------------------------------------------------------------------


def _polar(at: Coefficients) -> tuple[float, float]:
    alpha, sigma = at.alpha.item(), at.sigma.item()
    return math.atan2(abs(sigma), alpha), math.hypot(alpha, sigma)


def _arc(nodes: Sequence[_Node], start: float, end: float) -> Tensor:
    """The integral of x^ d cos(phi) + eps^ d sin(phi) from `start` to `end`, interpolated through the nodes."""
    half = (end - start) / 2
    phi = start + half * (_POINTS + 1)
    total = torch.zeros_like(nodes[0].prediction.x0)
    for node in nodes:
        basis = half * _WEIGHTS
        for other in nodes:
            if other is not node:
                basis = basis * (phi - other.angle) / (node.angle - other.angle)
        along_x, along_eps = -float(basis @ np.sin(phi)), float(basis @ np.cos(phi))
        total = total + along_x * node.prediction.x0 + along_eps * node.prediction.eps
    return total
