"""Folders that cannot be opened and models that cannot be written, told in one line."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers_folders import (
    CONV,
    OWN,
    V,
    built,
    ddpm,
    noise,
    one_line,
    read,
    saved,
    stock_unet,
)
from safetensors.torch import load_file, save_file

from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.models.diffusers_format import to_diffusers
from genzoo.models.diffusers_reader import from_diffusers
from genzoo.models.diffusion.denoising_model import DiffusionConfig
from genzoo.nn.saved_unet import SavedUNetConfig
from genzoo.objectives.denoising.paths import VE


def edit(file, **changes):
    file.write_text(json.dumps({**read(file), **changes}))


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("scheduler/scheduler_config.json", {"_class_name": "EulerDiscreteScheduler"}, "EulerDiscreteScheduler"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow_prediction"}, "flow_prediction"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "laplace"}, "laplace"),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "zero_snr"),
        ("scheduler/scheduler_config.json", {"trained_betas": [0.1, 1.5]}, "betas"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": "many"}, "wrong kind"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 0}, "steps"),
        ("unet/config.json", {"sample_size": [8, 0]}, "wrong kind"),
        ("unet/config.json", {"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel"),
        ("unet/config.json", {"num_class_embeds": 10}, "class-conditional"),
        ("unet/config.json", {"out_channels": 6}, "variance"),
        ("unet/config.json", {"out_channels": 4}, "conv_out"),
        ("unet/config.json", {"block_out_channels": "wide"}, "cannot be opened"),
        ("unet/config.json", {"sample_size": None}, "sample_size"),
        ("unet/config.json", {"layers_per_block": 2}, "up_blocks"),
        ("unet/config.json", {"layers_per_block": 0}, "cannot be opened"),
    ],
)  # fmt: skip
def test_what_cannot_be_opened_is_told(tmp_path, file, changes, words):
    saved(tmp_path, ddpm())
    edit(tmp_path / file, **changes)
    with pytest.raises(GenzooError) as error:
        from_diffusers(tmp_path)
    assert words in one_line(error)


@pytest.mark.parametrize(
    ("changes", "words"), [({"time_embedding_type": "fourier"}, "fourier"), ({"in_channels": 4}, "channels")]
)
def test_other_networks_are_told(tmp_path, changes, words):
    saved(tmp_path, ddpm(), stock_unet(**changes))
    with pytest.raises(GenzooError, match=words) as error:
        from_diffusers(tmp_path)
    one_line(error)


def test_missing_and_damaged_files_are_told(tmp_path):
    with pytest.raises(GenzooError, match="no folder at"):
        from_diffusers(tmp_path / "nowhere")
    with pytest.raises(GenzooError, match=r"config\.json is missing"):
        from_diffusers(tmp_path)
    unet = saved(tmp_path, ddpm())
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file({k: v for k, v in tensors.items() if k != "conv_out.bias"}, weights)
    with pytest.raises(GenzooError, match=r"conv_out\.bias") as error:
        from_diffusers(tmp_path)
    one_line(error)
    save_file({**tensors, "more": torch.ones(1)}, weights)
    with pytest.raises(GenzooError, match="more") as error:
        from_diffusers(tmp_path)
    one_line(error)
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(GenzooError, match="safetensors") as error:
        from_diffusers(tmp_path)
    one_line(error)
    weights.unlink()
    torch.save(unet.state_dict(), tmp_path / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(GenzooError, match="safetensors") as error:
        from_diffusers(tmp_path)
    one_line(error)
    (tmp_path / "scheduler" / "scheduler_config.json").write_text("{")
    with pytest.raises(GenzooError, match="JSON"):
        from_diffusers(tmp_path)


def test_our_own_component_builds_known_types_only(tmp_path):
    to_diffusers(built(OWN["conv-v"]), tmp_path)
    content = read(tmp_path / "unet" / "config.json")["genzoo"]
    content["config"]["network"]["type"] = "Popen"
    edit(tmp_path / "unet" / "config.json", genzoo=content)
    with pytest.raises(GenzooError, match="Popen"):
        from_diffusers(tmp_path)
    edit(tmp_path / "unet" / "config.json", genzoo={})
    with pytest.raises(GenzooError, match="spec"):
        from_diffusers(tmp_path)


def test_what_cannot_be_exported_is_told(tmp_path):
    conditional = DiffusionConfig(network=CONV).build(DataSpec((1, 8, 8), 256, "class", 10))
    for model, words in [
        (built(replace(V, path=VE())), "VE"),
        (conditional, "condition"),
    ]:
        with pytest.raises(GenzooError, match=words) as error:
            to_diffusers(model, tmp_path / "out")
        one_line(error)
        assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(GenzooError, match="is a file"):
        to_diffusers(built(V), tmp_path / "file")


def test_a_saved_unet_keeps_to_its_channels():
    config = SavedUNetConfig.of(stock_unet())
    assert config.build((3, 16, 16), 3, 0)(noise(1, 3, 16, 16), torch.zeros(1)).shape == (1, 3, 16, 16)
    for shape, out, cond, words in [
        ((1, 8, 8), 1, 0, "channels"),
        ((3, 8, 8), 3, 64, "condition"),
        ((4,), 4, 0, "images"),
    ]:
        with pytest.raises(GenzooError, match=words):
            config.build(shape, out, cond)
