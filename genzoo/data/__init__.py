"""Data: named sources, a person's own folders and analytic densities, all as splits of integer images."""

from genzoo.data.folder import load_folder
from genzoo.data.image_data import ImageData
from genzoo.data.pairs import (
    CORRUPTIONS,
    Corrupted,
    Corruption,
    Downsample,
    Edges,
    Grey,
    Mask,
    PairedSplit,
    Stored,
    paired,
)
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
from genzoo.data.stacked import stacked
from genzoo.data.toy import (
    BernoulliTemplates,
    Density,
    DiscretisedMixture,
    Gaussian,
    GaussianGrid,
    GaussianMixture,
)

__all__ = [
    "CORRUPTIONS",
    "BernoulliTemplates",
    "BinarisedSplit",
    "Corrupted",
    "Corruption",
    "Density",
    "DiscretisedMixture",
    "Downsample",
    "Edges",
    "FolderSplit",
    "Gaussian",
    "GaussianGrid",
    "GaussianMixture",
    "Grey",
    "ImageData",
    "LazyImages",
    "Mask",
    "PairedSplit",
    "Split",
    "Stored",
    "TensorSplit",
    "as_split",
    "load_data",
    "load_folder",
    "paired",
    "source_names",
    "stacked",
    "validate",
]
