"""Probabilities: output distributions, dequantisation, and the estimators of log P(x)."""

from benchmarks.mutant_rows.mutant import Mutant

ROWS = (
    # --- output distributions
    Mutant(
        name="logistic mixture without the tail of the last level",
        file="objectives/pixels.py",
        old="torch.where(last, zero, log_below)",
        new="log_below",
        tests=("tests/test_distributions.py",),
        why="the last bin takes the tail (Salimans et al. 2017, equation 2)",
    ),
    Mutant(
        name="logistic bins of half width",
        file="objectives/pixels.py",
        old="torch.log(-torch.expm1(-2 * half_bin * inverse_scale))",
        new="torch.log(-torch.expm1(-half_bin * inverse_scale))",
        tests=("tests/test_distributions.py",),
        why="sigmoid(u) - sigmoid(l) = sigmoid(u) sigmoid(-l) (1 - exp(l - u))",
    ),
    Mutant(
        name="Gaussian's last level from the lower edge",
        file="objectives/pixels.py",
        old="torch.where(last | ((offset > 0) & ~first), -1.0, 1.0)",
        new="torch.where((offset > 0) & ~first, -1.0, 1.0)",
        tests=("tests/test_distributions.py",),
        why="an end bin has one edge: the last level is P(x > lower edge)",
    ),
    # --- dequantisation
    Mutant(
        name="dequantisation without the factor of the range",
        file="objectives/dequantisation.py",
        old="math.log(levels / 2)",
        new="math.log(levels)",
        tests=("tests/test_ode_likelihood.py",),
        why="the bins of all levels tile [-1, 1], whose length is 2 (Theis et al. 2016)",
    ),
    Mutant(
        name="truncated normal without its mass",
        file="objectives/dequantisation.py",
        old="math.log(mass * self.sigma)",
        new="math.log(self.sigma)",
        tests=("tests/test_ode_likelihood.py",),
        why="what is cut off is missing from the normaliser (Zheng et al. 2023, section 4.1)",
    ),
    Mutant(
        name="truncated normal cut at the width of a bin",
        file="objectives/dequantisation.py",
        old="tau = 1 / (levels * self.sigma)",
        new="tau = 2 / (levels * self.sigma)",
        tests=("tests/test_ode_likelihood.py",),
        why="a bin reaches 1 / levels to either side of its centre (Zheng et al. 2023, section 4.1)",
    ),
    Mutant(
        name="bins centred at their lower edge",
        file="objectives/dequantisation.py",
        old="((2 * images.to(torch.float64) + 1) / levels - 1)",
        new="((2 * images.to(torch.float64)) / levels - 1)",
        tests=("tests/test_diffusion_bound.py", "tests/test_ode_likelihood.py"),
        why="the centre of level k is 2 (k + 1/2) / levels - 1",
    ),
    # --- annealed importance sampling
    Mutant(
        name="HMC with twice the kinetic energy",
        file="objectives/likelihood/annealing.py",
        old="kinetic = 0.5 * (velocity",
        new="kinetic = (velocity",
        tests=("tests/test_ais.py",),
        why="H = -log f + |v|^2 / 2 (Neal 2011, equation 2.6)",
    ),
    Mutant(
        name="leapfrog with half of a drift",
        file="objectives/likelihood/annealing.py",
        old="z = z + eps * velocity",
        new="z = z + 0.5 * eps * velocity",
        tests=("tests/test_ais.py",),
        why="half a kick, a whole drift, half a kick (Neal 2011, equations 2.28 to 2.30)",
    ),
    Mutant(
        name="bin centres taken for levels from -1 to 1",
        file="objectives/likelihood/decoder.py",
        old="return levels / (levels - 1)",
        new="return 1.0",
        tests=("tests/test_decoder_likelihood.py",),
        why="the discretised Gaussian's levels reach -1 and 1, bin centres leave half a bin",
    ),
    # --- probability-flow ODE
    Mutant(
        name="ODE likelihood without the scale of the first time",
        file="objectives/likelihood/ode.py",
        old="density.nats + x.shape[1:].numel() * alpha.log()",
        new="density.nats",
        tests=("tests/test_ode_likelihood.py",),
        why="log p(x) = log p_first(alpha x) + D log alpha",
    ),
    Mutant(
        name="Hutchinson's sum over probes",
        file="objectives/likelihood/divergence.py",
        old="(2 * bits - 1).to(x) / math.sqrt(self.probes)",
        new="(2 * bits - 1).to(x)",
        tests=("tests/test_ode_likelihood.py",),
        why="the mean of e^T J e over probes (Hutchinson 1990)",
    ),
    # --- variational bound of diffusion
    Mutant(
        name="bound's prior term doubled",
        file="objectives/likelihood/diffusion_bound.py",
        old="return 0.5 * (alpha / sigma * x.double())",
        new="return (alpha / sigma * x.double())",
        tests=("tests/test_diffusion_bound.py",),
        why="KL(N(alpha x, sigma^2) || N(0, sigma^2)) = alpha^2 |x|^2 / (2 sigma^2)",
    ),
    Mutant(
        name="bound's diffusion term without 1 + SNR",
        file="objectives/likelihood/diffusion_bound.py",
        old="0.5 * (high - low) * y.exp()",
        new="0.5 * (high - low)",
        tests=("tests/test_diffusion_bound.py",),
        why="dSNR = (1 + SNR) dy for y = log(1 + SNR)",
    ),
    Mutant(
        name="bound's decoder with twice the precision",
        file="objectives/likelihood/diffusion_bound.py",
        old="(-0.5 * offset**2).log_softmax(-1)",
        new="(-(offset**2)).log_softmax(-1)",
        tests=("tests/test_diffusion_bound.py",),
        why="P(k | x_first) ~ exp(-(x_first - alpha x_k)^2 / (2 sigma^2))",
    ),
    # --- baselines and codes
    Mutant(
        name="Laplace's rule without the number of levels",
        file="evaluation/baselines.py",
        old="(counts.sum(1, keepdim=True) + counts.shape[1])",
        new="(counts.sum(1, keepdim=True) + 1)",
        tests=("tests/test_baselines.py",),
        why="(count + 1) / (n + levels) sums to 1",
    ),
    Mutant(
        name="PPCA's bound without the noise's expectation",
        file="evaluation/baselines.py",
        old=" - 0.5 * UNIFORM_VARIANCE * (1 / self.values).sum()",
        new="",
        tests=("tests/test_baselines.py",),
        why="E_u of the quadratic form adds tr(C^-1) / 12 (Theis et al. 2016)",
    ),
)
