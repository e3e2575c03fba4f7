"""Two-player training: what a discriminator and whoever makes the fakes minimise, turn after turn.

GANs, image-to-image models and VQGAN each hold a `TwoPlayerGame`, and give it logits of their own discriminator.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genzoo.core.trainable import Loss
from genzoo.objectives.adversarial import AdversarialLoss, Critic, Lazy, penalties_due, per_image


class TwoPlayerGame(nn.Module):
    """A loss and its penalties, and the count of turns that decides when a penalty is due."""

    d_steps: Tensor

    def __init__(self, rule: AdversarialLoss, penalties: Sequence[Lazy]) -> None:
        super().__init__()
        self.rule, self.penalties = rule, tuple(penalties)
        self.register_buffer("d_steps", torch.zeros((), dtype=torch.long))
        """Steps of the discriminator so far; part of a model's state, so that an exact resume keeps it."""

    def discriminator_loss(
        self,
        critic: Critic,
        real: Tensor,
        fake: Tensor,
        generator: torch.Generator | None = None,
        progress: float = 1.0,
    ) -> Loss:
        """The discriminator's loss `[b]` of real images and of fakes `[b, ...]`, which get no gradient.

        `progress` is the share of the training budget used, which the weights of penalties may follow.

        Parts: its `accuracy`, the `gap` between its logits of real and fake images, and the `penalty` that is due.
        In evaluation mode all penalties are, as if each were paid every time, and nothing is counted.
        """
        fake = fake.detach()
        on_real, on_fake = critic(torch.cat([real, fake])).chunk(2)
        penalty = penalties_due(self.penalties, self._turn(), critic, real, fake, generator, progress)
        seen = on_real.detach(), on_fake.detach()
        parts = {
            "accuracy": per_image(self.rule.accuracy(*seen)),
            "gap": per_image(seen[0] - seen[1]),
            "penalty": penalty.detach(),
        }
        return Loss(per_image(self.rule.discriminator(on_real, on_fake)) + penalty, parts)

    def generator_loss(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """The loss `[b]` of whoever made the fakes `[b, ...]`, differentiable in them.

        The `critic` is to be frozen (`genzoo.core.passes.frozen`): its own parameters have no turn now.
        """
        with torch.no_grad():  # on a pass of their own: nothing is learnt from the real ones
            on_real = critic(real)
        return per_image(self.rule.generator(on_real, critic(fake)))

    def _turn(self) -> int | None:
        if not self.training:
            return None
        self.d_steps += 1
        return int(self.d_steps) - 1
