"""Loading a VLM and its processor from a folder or a hub name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedConfig
from transformers.utils.logging import disable_progress_bar

from theodolite.models.device import DType, Placement
from theodolite.models.export import CONFIG_CLASS, MODEL_CLASS, connected_classes, effective_adaptation, stock_of
from theodolite.models.exported.adapted import Adapted, AdaptedConfig, adapted_forward
from theodolite.models.families import EXPORTED, FAMILIES, family_of
from theodolite.models.processor import load_processor
from theodolite.models.untrusted import NO_CODE, SAFE_WEIGHTS
from theodolite.records.errors import BadInput

# What transformers raises on configurations of unknown models, and on weights that are broken or do not fit.
NOWHERE = "there is no such folder, and the Hugging Face hub gave no model of that name; check the name, the network, or your access to it"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def load_vlm(path: str | Path, device: str = "cpu", dtype: DType = "float32", attention: str = "sdpa") -> tuple[nn.Module, Any]:
    """A VLM in evaluation mode and its processor. Raises `BadInput` if there is no whole model, or the device or back end is not there.

    The family is checked before any weights are read. An exported adapted model is loaded with this package's code, not its folder's.
    """
    path = model_folder(path)
    if Path(path).is_dir() and not (Path(path) / "config.json").is_file():
        raise BadInput(f"{path} holds no config.json; give the folder of a Hugging Face model, such as runs/tour/all/model")
    target = torch.device(Placement.of(device).device)
    with loading("model", path):
        config = _config(path)
        kind = _kind(config, path)
        options = {"dtype": getattr(torch, dtype), "attn_implementation": attention, **SAFE_WEIGHTS}
        model, info = kind.from_pretrained(path, config=config, output_loading_info=True, **options)
        refuse_random_weights(path, info["missing_keys"])
        processor = load_processor(path, config)
    return with_memory(model, target).to(target).eval(), processor


def refuse_random_weights(path: str | Path, missing: Iterable[str]) -> None:
    """Raises `BadInput` if a checkpoint lacks weights: transformers loads it, with random ones in their place."""
    if names := sorted(missing):
        raise BadInput(f"{path} lacks {len(names)} of its weights ({names[0]} ...), which would be random; give a complete checkpoint")


def with_memory(model: Any, device: torch.device) -> Any:
    """The model with uninitialised memory on a device for each parameter that has none (is on the meta device).

    Under `cpu_ram_efficient_loading` a process may leave its weights on the meta device; accelerate then gives them the values of the
    first process, and finds an optimizer's parameters by their addresses. Memory that nothing writes to takes no room.
    """
    memory: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.is_meta:
                if parameter not in memory:
                    memory[parameter] = nn.Parameter(torch.empty_like(parameter, device=device), parameter.requires_grad)
                setattr(module, name, memory[parameter])
    return model


@contextmanager
def loading(what: str, path: str | Path) -> Iterator[None]:
    """Raises errors of transformers within the context as `BadInput`, with the reason why no `what` can be loaded from `path`."""
    refuse_missing_folder(what, path)
    disable_progress_bar()  # transformers' own, one for each model
    getLogger("huggingface_hub").setLevel(ERROR)  # it would say of each retry that a host is not reached
    try:
        yield
    except BadInput:
        raise
    except OSError as error:
        reason = _first_line(error) if Path(path).exists() else NOWHERE
        raise BadInput(f"no {what} can be loaded from {path}: {reason}") from error
    except ImportError as error:
        raise BadInput(f"no {what} can be loaded from {path}: {_first_line(error)}") from error
    except Exception as error:  # a file of another form raises anything: tokenizers raise a plain `Exception`
        reason = f"{type(error).__name__}: {_first_line(error)}"
        raise BadInput(f"no {what} can be loaded from {path} ({reason}); give the name of a whole Hugging Face {what}") from error


def refuse_missing_folder(what: str, path: str | Path) -> None:
    """Raises `BadInput` if `path` is not there and can only be a path: no name on the hub, or one in a folder that exists."""
    folder = Path(path)
    if folder.exists() or (HUB_NAME.fullmatch(str(path)) and (len(folder.parts) == 1 or not folder.parent.is_dir())):
        return
    beside = sorted(each.name for each in folder.parent.iterdir() if each.is_dir()) if folder.parent.is_dir() else []
    near = get_close_matches(folder.name, beside, 1)
    fix = f"did you mean {folder.parent / near[0]}?" if near else f"give the folder of a whole {what}, or its name on the Hugging Face hub"
    raise BadInput(f"no {what} can be loaded from {path}: there is no such folder; {fix}")


def _config(path: str | Path) -> Any:
    """The configuration; that of an exported adapted model by this package's class."""
    name = str(PreTrainedConfig.get_config_dict(path)[0].get("model_type"))
    stock = name.removeprefix(EXPORTED)
    if stock != name and stock in FAMILIES:
        return adapted_classes(stock)[0].from_pretrained(path)
    return AutoConfig.from_pretrained(path, **NO_CODE)


def _kind(config: Any, path: str | Path) -> Any:
    """The model class. Raises `BadInput` for a family that cannot be handled, or an adapted model that was saved as a stock one."""
    family = family_of(config)
    if isinstance(config, AdaptedConfig):
        return adapted_classes(family.name)[1]
    if not effective_adaptation(config).is_stock:
        raise BadInput(
            f"{path} holds a model that was adapted ({config.adaptation}), saved as if it were a stock {family.name}; export it again with "
            "theodolite.models.export.export_vlm, or the trainer's save_model"
        )
    return AutoModelForImageTextToText


@cache
def adapted_classes(name: str) -> tuple[Any, Any]:
    """The configuration class and the model class of a family's adapted models, which also make this package's connectors.

    Registers both with the Auto classes, since `AutoProcessor` needs the class of the configuration in the same folder.
    """
    family = FAMILIES[name]
    stock_config, stock_model = connected_classes(family)
    config = type(CONFIG_CLASS, (AdaptedConfig, stock_config), {"model_type": EXPORTED + name, "__module__": __name__})
    members = {"config_class": config, "stock": stock_of(family), "forward": adapted_forward(stock_model), "__module__": __name__}
    model = type(MODEL_CLASS, (Adapted, stock_model), members)
    AutoConfig.register(EXPORTED + name, config, exist_ok=True)
    AutoModelForImageTextToText.register(config, model, exist_ok=True)
    return config, model


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "no reason given")


def model_folder(path: str | Path) -> str | Path:
    """`path/model` where `path` is the folder of a finished training run, else `path` itself."""
    inside = Path(path) / "model"
    return inside if not (Path(path) / "config.json").is_file() and (inside / "config.json").is_file() else path
