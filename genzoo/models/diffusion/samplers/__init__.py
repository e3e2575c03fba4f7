"""Samplers of every Gaussian path: solvers, time grids, guidance, inversion and imputation."""
