"""A family of models that the table does not hold yet: here a LLaVA under a model type of its own."""

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

import theodolite as th
from theodolite.models.construction.build import DecoderSize, build_vlm
from theodolite.models.exported.grids import KINDS
from theodolite.models.families import FAMILIES, Family
from theodolite.models.pictures import PLACEHOLDER_FORMATS


class MyConfig(LlavaConfig):
    model_type = "my_llava"


class MyModel(LlavaForConditionalGeneration):
    config_class = MyConfig


# In a contribution these three are lines of the tables themselves.
FAMILIES["my_llava"] = Family(
    name="my_llava",
    encoder="model.vision_tower",
    connector=("model.multi_modal_projector",),
    language_model="model.language_model",
    shares_prefix=True,  # a picture's tokens do not see the question behind them
)
PLACEHOLDER_FORMATS["my_llava"] = PLACEHOLDER_FORMATS["llava"]  # how a picture is written in the prompt
KINDS["my_llava"] = KINDS["llava"]  # where each of its tokens lies in it

world = th.Shapes()
stock, processor = build_vlm(world.texts, seed=0, decoder=DecoderSize(num_layers=2, width=32, num_heads=2))
model = MyModel(MyConfig(**{name: value for name, value in stock.config.to_dict().items() if name != "model_type"}))
model.load_state_dict(stock.state_dict())

result = th.survey_model((model, processor), world, policy="shape,row", num_scenes=4)
print(result.record.model.family)

# The contract: the same answers as the stock model, which has the same weights.
stock_result = th.survey_model((stock, processor), world, policy="shape,row", num_scenes=4)
before = torch.tensor(result.rows["outside_before"].to_list())
print(torch.allclose(before, torch.tensor(stock_result.rows["outside_before"].to_list()), atol=1e-5))
