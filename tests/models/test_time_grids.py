"""Time grids: where they stop."""

import itertools
import math

import pytest
import torch
from gaussian_paths import (
    F64,
    GRIDS,
    PATHS,
)

from genzoo.core.errors import GenzooError
from genzoo.models.diffusion.samplers.time_grids import KarrasGrid, LogisticGrid, LogSNRGrid, UniformGrid
from genzoo.objectives.denoising.paths import VE, Linear, VPCosine, VPLinear


@pytest.mark.parametrize(("path", "grid", "n"), list(itertools.product(PATHS, GRIDS, (1, 2, 9))), ids=repr)
def test_grids_descend_from_start_to_last(path, grid, n):
    for ends in ({}, {"start": 0.8}, {"last": 0.01}, {"start": 0.5, "last": 0.1}):
        times = type(grid)(**ends)(path, n)
        assert times.shape == (n + 1,) and times.dtype == F64 and (times.diff() < 0).all()
        assert times[0] == ends.get("start", 1.0) and times[-1] == ends.get("last", 0.0)


def test_karras_times_are_equation_5():
    """Karras et al. 2022 with n noise levels and a last step to 0, on a path with alpha < 1 as on theirs."""
    low, high, rho, n = 0.002, 80.0, 7.0, 18
    wanted = [
        (high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(n)
    ]
    at_times = VPCosine().at(KarrasGrid(sigma_min=low)(VPCosine(), n))
    noise = (at_times.sigma / at_times.alpha)[1:-1]  # the first is t = 1 itself
    torch.testing.assert_close(noise, torch.tensor(wanted[1:], dtype=F64))
    ends_in_noise = KarrasGrid()(VE(), n - 1)  # sigma(0) = 0.002 is as far as it goes
    torch.testing.assert_close(VE().at(ends_in_noise).sigma, torch.tensor(wanted, dtype=F64))


def test_log_snr_times_are_even():
    for path, clean in ((VPLinear(), True), (VE(), False)):
        log_snr = path.log_snr(LogSNRGrid(sigma_max=200.0)(path, 12))
        steps = (log_snr[1:-1] if clean else log_snr).diff()
        torch.testing.assert_close(steps, steps[:1].expand_as(steps))
    assert math.isclose(log_snr[-1], -2 * math.log(0.002), rel_tol=1e-9)


def test_few_log_snr_steps_end_at_noise_that_is_removed_at_once():
    def smallest(n, start=1.0):
        alpha, sigma, _, _ = Linear().at(LogSNRGrid(start=start)(Linear(), n)[-2])
        return float(sigma / alpha)

    assert math.isclose(smallest(10), 0.12, rel_tol=1e-9) and math.isclose(smallest(600), 0.004, rel_tol=1e-9)
    assert smallest(10, start=0.01) < 0.01 / 0.99


def test_logistic_times_are_even_quantiles():
    for path in (Linear(), VPCosine(), VE()):
        log_noise = -0.5 * path.log_snr(LogisticGrid()(path, 12)[1:-1])
        shares = torch.sigmoid((log_noise - 0.5) / 1.1)
        torch.testing.assert_close(shares.diff(), shares.diff()[:1].expand(10), rtol=1e-6, atol=0)
    for n, start in ((1, 1.0), (2, 1.0), (200, 1.0), (10, 0.001)):
        times = LogisticGrid(start=start)(Linear(), n)
        assert len(times) == n + 1 and bool((times.diff() < 0).all()) and times[-1] == 0 and times[0] == start


def test_grids_refuse_what_cannot_be():
    with pytest.raises(GenzooError, match="n >= 1"):
        UniformGrid()(Linear(), 0)
    with pytest.raises(GenzooError, match="last < start"):
        KarrasGrid(start=0.3, last=0.4)(Linear(), 3)
    with pytest.raises(GenzooError, match="sigma_min < sigma_max"):
        LogSNRGrid(sigma_min=100.0)(Linear(), 3)
