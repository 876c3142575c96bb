"""Train a VLM with LaVer in a Trainer script of your own, and survey it on the way."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import TrainingArguments

import theodolite as th
from theodolite.models.construction.build import DecoderSize, build_vlm

world = th.Shapes().correlate("shape", "colour", strength=0.8)

# Data in LLaVA's format: a list of records beside a folder of pictures. Here 16 pictures of the shapes world.
Path("pictures").mkdir()
scenes = world.sample(16, np.random.default_rng(0))
records = []
for index, pixels in enumerate(world.render(scenes)):
    Image.fromarray(pixels).save(f"pictures/{index}.png")
    shape = scenes.scene(index).values["shape"]
    turns = [{"from": "human", "value": "<image>\nwhat is its shape?"}, {"from": "gpt", "value": shape}]
    records.append({"id": str(index), "image": f"{index}.png", "conversations": turns})
Path("data.json").write_text(json.dumps(records))

# A tiny model with random weights; th.load_vlm("your/model") gives the same two. Freeze what is not to be trained.
model, processor = build_vlm(world.texts, seed=0, decoder=DecoderSize(num_layers=2, width=32, num_heads=2))
args = TrainingArguments(
    "runs",
    max_steps=4,
    per_device_train_batch_size=4,
    logging_steps=1,
    save_strategy="no",
    report_to="none",
    use_cpu=True,
)
laver = th.LaverConfig(branch="joint", head_hidden=64)  # the paper's: branch="separate", head_hidden=8192
trainer = th.LaverTrainer(
    model, laver, args=args, train_dataset=th.LlavaJson("data.json", "pictures"), processing_class=processor
)

options = th.SurveyOptions(policy="shape", num_scenes=4)
trainer.add_callback(th.SurveyCallback((model, processor), world, "steps", every=2, options=options))
trainer.train()
trainer.save_model("out")  # a Hugging Face folder without teacher and head

print([entry["loss/gram"] for entry in trainer.state.log_history if "loss/gram" in entry])
print(th.load_survey("steps/step-000002").record.shadows.verdicts["shape"])
th.load_vlm("out")
