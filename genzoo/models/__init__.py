"""The families, one file each, and the configuration types that a run folder may name."""

from genzoo.betas import CosineBetas, GivenBetas, LinearBetas
from genzoo.config import TrainConfig
from genzoo.couplings import ClassAwareOptimalTransport, Independent, OptimalTransport
from genzoo.encoders import ENCODER_TYPES
from genzoo.likelihood import (
    BoundProtocol,
    DormandPrince,
    ExactDivergence,
    ExactIfSmall,
    Hutchinson,
    OdeProtocol,
    RungeKutta4,
    TruncatedNormalDequantisation,
    UniformDequantisation,
)
from genzoo.models.autoregressive import HeadConfig, PixelCNNConfig, PixelTransformerConfig
from genzoo.models.diffusion import DiffusionConfig
from genzoo.models.gan import GANConfig
from genzoo.models.hvae import HVAEConfig
from genzoo.models.image_to_image import ImageToImageConfig
from genzoo.models.latent import LatentConfig
from genzoo.models.shortcut import ShortcutConfig
from genzoo.models.vae import VAEConfig
from genzoo.models.vqgan import VQGANConfig
from genzoo.models.vqvae import VQVAEConfig
from genzoo.models.with_prior import WithPriorConfig
from genzoo.networks.clocks import LogSNRClock, TimeClock
from genzoo.networks.conv_unet import ConvUNetConfig
from genzoo.networks.gan_nets import ConvGANNetworks, DenseGANNetworks
from genzoo.networks.mlp import MLPConfig
from genzoo.networks.patch_discriminator import PatchDiscriminatorConfig
from genzoo.networks.patch_transformer import PatchTransformerConfig
from genzoo.networks.quantisers import QuantiserConfig
from genzoo.networks.saved_unet import SavedUNetConfig
from genzoo.networks.unet import UNetConfig
from genzoo.objectives.adversarial import (
    R1,
    R2,
    GradientPenalty,
    Hinge,
    Lazily,
    LeastSquares,
    NonSaturating,
    RelativisticPaired,
    Wasserstein,
)
from genzoo.objectives.denoising import (
    EDMWeighting,
    ELBOWeighting,
    MinSNR,
    SigmoidWeighting,
    SimpleNoise,
    TargetWeighting,
)
from genzoo.objectives.elbo import Balanced, Capacity, ConstantBeta, Cyclical, FreeBits, WarmUp
from genzoo.objectives.times import (
    Importance,
    LogitNormal,
    LogNormalSigma,
    StratifiedTimes,
    UniformLogSNR,
    UniformTimes,
)
from genzoo.paths import (
    VE,
    DataTarget,
    DiscreteBetas,
    EDMTarget,
    Linear,
    NoiseTarget,
    SubVP,
    Trigonometric,
    VelocityTarget,
    VPCosine,
    VPLinear,
    VTarget,
)
from genzoo.samplers import (
    DDIM,
    AdamsMoulton,
    Ancestral,
    Dopri5,
    DPMSolverPP2M,
    Euler,
    Heun,
    KarrasGrid,
    LogisticGrid,
    LogSNRGrid,
    Sampling,
    UniformGrid,
)

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
    VQGANConfig,
    LatentConfig,
    *(DiffusionConfig, Sampling, ShortcutConfig),
    *(VPLinear, VPCosine, Trigonometric, SubVP, DiscreteBetas, Linear, VE),
    *(LinearBetas, CosineBetas, GivenBetas),
    *(NoiseTarget, DataTarget, VTarget, VelocityTarget, EDMTarget),
    *(SimpleNoise, TargetWeighting, MinSNR, EDMWeighting, ELBOWeighting, SigmoidWeighting),
    *(UniformTimes, StratifiedTimes, UniformLogSNR, LogitNormal, LogNormalSigma, Importance),
    *(Independent, OptimalTransport, ClassAwareOptimalTransport),
    *(ConvUNetConfig, UNetConfig, SavedUNetConfig, PatchTransformerConfig, MLPConfig),
    *(TimeClock, LogSNRClock),
    *(Ancestral, DDIM, Euler, Heun, DPMSolverPP2M, AdamsMoulton, Dopri5),
    *(UniformGrid, KarrasGrid, LogSNRGrid, LogisticGrid),
    *(BoundProtocol, OdeProtocol, DormandPrince, RungeKutta4),
    *(ExactDivergence, ExactIfSmall, Hutchinson),
    *(GANConfig, ConvGANNetworks, DenseGANNetworks),
    *(ImageToImageConfig, PatchDiscriminatorConfig),
    *(NonSaturating, LeastSquares, Hinge, Wasserstein, RelativisticPaired, R1, R2, GradientPenalty, Lazily),
    *(UniformDequantisation, TruncatedNormalDequantisation),
    WithPriorConfig,
    *ENCODER_TYPES,
)
