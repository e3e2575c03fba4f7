"""Checks of losses, gradients and turns."""

import torch

from genzoo.core.trainable import Loss, Trainable
from genzoo.testing.probe import example_batch, perturb, require, require_refusal, seeded


def loss_is_finite_per_image(model: Trainable) -> None:
    """The loss of each turn, and every part of it, is one finite number per image."""
    model.train()
    for turn in model.turns:
        loss = model.loss(example_batch(model, 4), turn, generator=seeded(model, 0))
        require(isinstance(loss, Loss), f"the loss of turn {turn!r} is no genzoo.core.trainable.Loss")
        require(loss.total.requires_grad, f"the loss of turn {turn!r} has no gradient")
        for name, value in {"total": loss.total, **loss.parts}.items():
            shape = tuple(value.shape)
            require(shape == (4,), f"{name!r} of turn {turn!r} has shape {shape} for 4 images, not (4,)")
            require(bool(value.isfinite().all()), f"{name!r} of turn {turn!r} is not finite")


def gradients_stay_in_their_turn(model: Trainable) -> None:
    """The loss of a turn reaches all trainable parameters of that turn and none of another's."""
    perturb(model).train()  # layers that start at zero would stop the gradient
    names = {parameter: name for name, parameter in model.named_parameters()}
    owned = {turn: _trainable(model, turn) for turn in model.turns}
    for turn, own in owned.items():
        model.zero_grad(set_to_none=True)
        for seed in range(4):  # a part that is dropped at random is there in one of them
            model.loss(
                example_batch(model, 8, seed), turn, generator=seeded(model, seed)
            ).total.mean().backward()
        missing = [names.get(p, "a parameter outside the model") for p in own if p.grad is None]
        require(not missing, f"turn {turn!r} gives no gradient to {', '.join(missing[:3])}")
        require(any(_reached(p) for p in own), f"turn {turn!r} gives all its parameters zero gradients")
        others = set().union(*owned.values()) - own
        leaks = sorted(names.get(p, "a parameter outside the model") for p in others if _reached(p))
        require(not leaks, f"turn {turn!r} leaks gradients to {', '.join(leaks[:3])} of another turn")


def turns_partition_parameters(model: Trainable) -> None:
    """Every trainable parameter belongs to exactly one turn, and an unknown turn raises."""
    require(len(set(model.turns)) == len(model.turns) > 0, f"turns must be distinct names, got {model.turns}")
    owners = {name: 0 for name, _ in model.named_parameters()}
    names = {parameter: name for name, parameter in model.named_parameters()}
    for turn in model.turns:
        for parameter in model.parameters_of(turn):
            require(parameter in names, f"turn {turn!r} has a parameter that the model does not have")
            owners[names[parameter]] += 1
    for parameter, name in names.items():
        require(owners[name] <= 1, f"parameter {name} is listed {owners[name]} times over all turns")
        require(owners[name] == 1 or not parameter.requires_grad, f"parameter {name} belongs to no turn")
    require_refusal(lambda: list(model.parameters_of("no such turn")), "parameters_of an unknown turn")


def _trainable(model: Trainable, turn: str) -> set[torch.nn.Parameter]:
    return {parameter for parameter in model.parameters_of(turn) if parameter.requires_grad}


def _reached(parameter: torch.nn.Parameter) -> bool:
    return parameter.grad is not None and bool((parameter.grad != 0).any())
