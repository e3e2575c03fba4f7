"""Data: named sources, a person's own folders and analytic densities, all as splits of integer images."""

from genzoo.core.lazy import lazy_names

_HOMES = {
    "as_split": "genzoo.data.split",
    "BernoulliTemplates": "genzoo.data.toy",
    "BinarisedSplit": "genzoo.data.split",
    "Corrupted": "genzoo.data.pairs",
    "Corruption": "genzoo.data.pairs",
    "CORRUPTIONS": "genzoo.data.pairs",
    "Density": "genzoo.data.toy",
    "DiscretisedMixture": "genzoo.data.toy",
    "Downsample": "genzoo.data.pairs",
    "Edges": "genzoo.data.pairs",
    "from_images": "genzoo.data.arrays",
    "FolderSplit": "genzoo.data.split",
    "Gaussian": "genzoo.data.toy",
    "GaussianGrid": "genzoo.data.toy",
    "GaussianMixture": "genzoo.data.toy",
    "Grey": "genzoo.data.pairs",
    "ImageData": "genzoo.data.image_data",
    "LazyImages": "genzoo.data.split",
    "load_data": "genzoo.data.sources",
    "load_folder": "genzoo.data.folder",
    "Mask": "genzoo.data.pairs",
    "paired": "genzoo.data.pairs",
    "PairedSplit": "genzoo.data.pairs",
    "register_data": "genzoo.data.sources",
    "source_names": "genzoo.data.sources",
    "Split": "genzoo.data.split",
    "stacked": "genzoo.data.stacked_channels",
    "Stored": "genzoo.data.pairs",
    "TensorSplit": "genzoo.data.split",
    "validate": "genzoo.data.split",
}
"""Public name to the module that defines it, which is loaded when it is first used."""

__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
