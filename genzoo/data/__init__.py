"""Data: named sources, a person's own folders and analytic densities, all as splits of integer images."""

from genzoo.data.folder import load_folder
from genzoo.data.image_data import ImageData
from genzoo.data.sources import load_data, source_names
from genzoo.data.split import (
    BinarisedSplit,
    FolderSplit,
    LazyImages,
    Split,
    TensorSplit,
    as_split,
    validate,
)
from genzoo.data.toy import (
    BernoulliTemplates,
    Density,
    DiscretisedMixture,
    Gaussian,
    GaussianGrid,
    GaussianMixture,
)

__all__ = [
    "BernoulliTemplates",
    "BinarisedSplit",
    "Density",
    "DiscretisedMixture",
    "FolderSplit",
    "Gaussian",
    "GaussianGrid",
    "GaussianMixture",
    "ImageData",
    "LazyImages",
    "Split",
    "TensorSplit",
    "as_split",
    "load_data",
    "load_folder",
    "source_names",
    "validate",
]
