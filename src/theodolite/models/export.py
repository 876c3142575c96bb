"""Export of a VLM as a Hugging Face directory: a stock checkpoint where nothing is adapted, else with the code that inference needs."""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from theodolite.models.exported import adapted, attention, cells_tower, connectors, conv_tower, grids, layout, lite0_tower, positions
from theodolite.models.exported.connectors import STOCK, ConnectorLlava, connector_of
from theodolite.models.families import EXPORTED, Family, family_of
from theodolite.models.forward import Adaptation, adaptation_of, base_model
from theodolite.records.errors import BadInput

# Modules whose files are copied beside an adapted model. They import torch, transformers and each other.
SHIPPED = (adapted, attention, grids, layout, positions)
# The module that is copied beside a model whose vision tower transformers does not have, by the tower's model type.
TOWERS: Mapping[str, ModuleType] = {
    conv_tower.ConvTowerConfig.model_type: conv_tower,
    lite0_tower.Lite0TowerConfig.model_type: lite0_tower,
    cells_tower.CellsTowerConfig.model_type: cells_tower,
}
# The subclass of a stock class that can also make this package's connectors.
CONNECTED: Mapping[type, type] = {LlavaForConditionalGeneration: ConnectorLlava}
MODELING = "modeling_theodolite"
CONFIG_CLASS, MODEL_CLASS = "TheodoliteConfig", "TheodoliteForConditionalGeneration"
CODE = '''"""A {model}, adapted: {adaptation} (see adapted.py)."""

from transformers import {library}

from .adapted import Adapted, AdaptedConfig, Stock, adapted_forward
{imports}

class {config_class}(AdaptedConfig, {config}):
    model_type = "{model_type}"


class {model_class}(Adapted, {model}):
    config_class = {config_class}
    stock = {stock}
    forward = adapted_forward({model})
'''


def export_vlm(model: nn.Module, processor: Any | None, folder: str | Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
    """Writes a VLM (and its processor) to a folder that loads without theodolite installed. The model is not changed.

    A model without adaptation is a stock checkpoint. The folder of an adapted one, or one with a connector of this package, also has code:
    `from_pretrained` needs `trust_remote_code=True`, and raises without it, as the stock classes do. Adapters of peft are merged into a
    copy; where they change one of two tied matrices (head and embedding table), both are written, untied. `state_dict` are the full
    weights, by the names of `model.state_dict()`, for a model whose own are sharded. Raises `BadInput` for a quantised model, and for 2D
    positions with a resampler.
    """
    base = base_model(model)
    family = family_of(base.config)
    _refuse_unsavable(base)
    weights = _weights(model, state_dict)
    tied = _share_tied(base, weights)
    adaptation = effective_adaptation(base.config)
    is_stock = adaptation.is_stock and connector_of(base.config) == STOCK
    folder = Path(folder)
    # Code in the folder loads weights by their current names only; stock code also loads the original names, which other tools may need.
    has_code = not is_stock or _tower(base.config.to_dict()) is not None
    base.save_pretrained(folder, state_dict=weights, save_original_format=not has_code)
    path = folder / "config.json"
    settings = adapted.release_text_config(json.loads(path.read_text()))
    for name in ("adaptation", "auto_map"):
        settings.pop(name, None)
    if not tied:
        for part in (settings, settings.get("text_config", {})):
            part["tie_word_embeddings"] = False
    settings |= _stock_settings(family, settings) if is_stock else _adapted_settings(family, adaptation)
    path.write_text(json.dumps(settings if is_stock else adapted.hold_text_config(settings), indent=2, sort_keys=True) + "\n")
    modules = (_tower(settings),) if is_stock else (*SHIPPED, connectors if connector_of(base.config) != STOCK else None, _tower(settings))
    for module in filter(None, modules):
        shutil.copyfile(_file(module), folder / _file(module).name)
    if not is_stock:
        (folder / f"{MODELING}.py").write_text(_code(family, adaptation, connector_of(base.config), _tower(settings)))
    if processor is not None:
        processor.save_pretrained(folder)


def rehearse_export(model: nn.Module, processor: Any | None) -> None:
    """Writes a model's settings and its processor to a temporary folder, no weights. Raises `BadInput` for what `export_vlm` would refuse.

    transformers checks some settings only when it writes them, which would be after training.
    """
    base = base_model(model)
    _refuse_unsavable(base)
    with tempfile.TemporaryDirectory() as folder:
        try:
            base.config.save_pretrained(folder)
            if base.can_generate():
                base.generation_config.save_pretrained(folder)
            if processor is not None:
                processor.save_pretrained(folder)
        except (ValueError, TypeError, AttributeError, StrictDataclassError) as error:
            raise BadInput(f"the trained model could not be saved: {error}; change this setting before training") from error


def effective_adaptation(config: Any) -> Adaptation:
    """The part of a model's adaptation that its stock class does not do itself: M-RoPE already is 2D positions."""
    adaptation = adaptation_of(config)
    positions = "native" if family_of(config).positions == "mrope" and adaptation.attention == "native" else adaptation.positions
    return Adaptation(adaptation.attention, positions)


def stock_of(family: Family) -> adapted.Stock:
    """The properties of a family that its adapted class needs."""
    return adapted.Stock(family.language_model, family.positions, family.attention)


def stock_classes(family: Family) -> tuple[type, type]:
    """The library's configuration class and model class of a family."""
    from transformers import CONFIG_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    config = CONFIG_MAPPING[family.name]
    return config, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[config]


def connected_classes(family: Family) -> tuple[type, type]:
    """As `stock_classes`, with a model class that can also make this package's connectors, where there is one."""
    config, model = stock_classes(family)
    return config, CONNECTED.get(model, model)


def _refuse_unsavable(base: Any) -> None:
    if getattr(base, "hf_quantizer", None) is not None:
        raise BadInput("the model is quantised, so its weights cannot be merged and written; train it in bfloat16 for an export")
    if connector_of(base.config) == "resampler" and effective_adaptation(base.config).positions == "2d":
        raise BadInput(
            "2D positions need tokens that have a place in the picture, and a resampler's have none; adapt the model with positions "
            "'native', or take another connector (linear, mlp, local)"
        )


def _weights(model: nn.Module, state_dict: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """All weights by the names of the stock class, adapters merged."""
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        return dict(model.state_dict() if state_dict is None else state_dict)
    if state_dict is None and any(getattr(config, "ensure_weight_tying", False) for config in model.peft_config.values()):
        state_dict = model.state_dict()  # peft ties adapters by views, which cannot be copied with their modules
    copied = copy.deepcopy(model) if state_dict is None else _rebuilt(model, state_dict)
    _separate(copied)
    return dict(copied.merge_and_unload().state_dict())


def _rebuilt(model: Any, state_dict: Mapping[str, Tensor]) -> Any:
    """A peft model like `model`, with the weights of a state dict."""
    from peft import get_peft_model

    base, name = base_model(model), model.active_adapter
    kind = connected_classes(family_of(base.config))[1]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")  # peft gave it when the model was wrapped
        rebuilt = get_peft_model(kind(copy.deepcopy(base.config)), copy.deepcopy(model.peft_config[name]), adapter_name=name)
    # Merging writes into the weights, and the caller's must not change.
    rebuilt.load_state_dict({path: value.clone() for path, value in state_dict.items()}, assign=True)
    return rebuilt


def _separate(wrapped: Any) -> None:
    """Gives each adapted layer a matrix of its own: an adapter on one of two tied matrices would be merged into both."""
    owners: dict[int, list[tuple[nn.Module, str]]] = defaultdict(list)
    for module in wrapped.modules():
        for name, parameter in module.named_parameters(recurse=False):
            owners[id(parameter)].append((module, name))
    for sharing in owners.values():
        for module, name in sharing[1:]:
            parameter = getattr(module, name)
            setattr(module, name, nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad))
    config = base_model(wrapped).config
    config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = False


def _share_tied(base: Any, weights: dict[str, Tensor]) -> bool:
    """Whether the matrices that the configuration ties are equal. If they are, each becomes one tensor, and is written once."""
    tied = base.get_expanded_tied_weights_keys(all_submodels=True)
    pairs = [(one, other) for one, other in tied.items() if one in weights and other in weights]
    if not all(torch.equal(weights[one], weights[other]) for one, other in pairs):
        return False
    for one, other in pairs:
        weights[one] = weights[other]
    return True


def _stock_settings(family: Family, settings: Mapping[str, Any]) -> dict[str, Any]:
    tower = _tower(settings)
    code_settings: dict[str, Any] = {}
    if tower is not None:
        code, kind = _file(tower).stem, f"{tower.__all__[0]}Llava"
        code_settings["auto_map"] = {"AutoConfig": f"{code}.{kind}Config", "AutoModelForImageTextToText": f"{code}.{kind}"}
    return {"model_type": family.name, "architectures": [stock_classes(family)[1].__name__], **code_settings}


def _adapted_settings(family: Family, adaptation: Adaptation) -> dict[str, Any]:
    return {
        "model_type": EXPORTED + family.name,
        "architectures": [MODEL_CLASS],
        "adaptation": {"attention": adaptation.attention, "positions": adaptation.positions},
        "auto_map": {"AutoConfig": f"{MODELING}.{CONFIG_CLASS}", "AutoModelForImageTextToText": f"{MODELING}.{MODEL_CLASS}"},
    }


def _tower(settings: Mapping[str, Any]) -> ModuleType | None:
    """The module of a vision tower of this package; None for a stock tower."""
    return TOWERS.get(settings["vision_config"]["model_type"])


def _file(module: ModuleType) -> Path:
    return Path(str(module.__file__))


def _code(family: Family, adaptation: Adaptation, connector: str, tower: ModuleType | None) -> str:
    """Source text of the classes of an adapted model, or of one whose connector is not the stock one."""
    config, stock = (kind.__name__ for kind in stock_classes(family))
    is_connected = connector != STOCK
    model = connected_classes(family)[1].__name__ if is_connected else stock
    imports = f"from .{_file(connectors).stem} import {model}\n" if is_connected else ""
    # Importing the tower's file registers it, which its configuration needs.
    imports += f"from .{_file(tower).stem} import {tower.__all__[0]} as {tower.__all__[0]}\n" if tower else ""
    return CODE.format(
        config=config,
        model=model,
        library=config if is_connected else f"{config}, {stock}",
        adaptation=f"attention {adaptation.attention}, positions {adaptation.positions}",
        imports=imports,
        config_class=CONFIG_CLASS,
        model_class=MODEL_CLASS,
        model_type=EXPORTED + family.name,
        stock=stock_of(family),
    )
