"""The families, one file each, and the configuration types that a run folder may name."""

from genzoo.config import TrainConfig
from genzoo.models.autoregressive import HeadConfig, PixelCNNConfig, PixelTransformerConfig
from genzoo.models.hvae import HVAEConfig
from genzoo.models.latent import LatentConfig
from genzoo.models.vae import VAEConfig
from genzoo.models.vqvae import VQVAEConfig
from genzoo.networks.quantisers import QuantiserConfig
from genzoo.objectives.elbo import Balanced, Capacity, ConstantBeta, Cyclical, FreeBits, WarmUp

CONFIG_TYPES: tuple[type, ...] = (
    TrainConfig,
    HeadConfig,
    PixelCNNConfig,
    PixelTransformerConfig,
    VAEConfig,
    HVAEConfig,
    ConstantBeta,
    WarmUp,
    Cyclical,
    FreeBits,
    Capacity,
    Balanced,
    QuantiserConfig,
    VQVAEConfig,
    LatentConfig,
)
