"""Survey a Hugging Face VLM of your own: from a folder, from the hub, or from memory."""

import sys

import theodolite as th
from theodolite.models.construction.build import DecoderSize, build_vlm

world = th.Shapes().correlate("shape", "colour", strength=0.8)
if len(sys.argv) > 1:
    model = sys.argv[1]  # a folder, or a name such as Qwen/Qwen2.5-VL-3B-Instruct
else:
    # A tiny model with random weights, as (model, processor).
    model = build_vlm(world.texts, seed=0, decoder=DecoderSize(num_layers=2, width=32, num_heads=2))

options = th.SurveyOptions(num_scenes=20, measures=("ladder",), inside_scenes=20)
result = th.survey_model(model, world, options, policy="shape:agree,row", title="mine")

print(result.record.coverage.coverage["shape"])  # what the questions alone pin down
print(result.record.shadows.verdicts)  # a word for each factor
print(result.record.inside.ladder.factors["colour"].loss.step)  # where colour is lost

# Pairs in which the answer about shape does the wrong thing under do(colour).
wrong = result.failures(factor="colour", query="shape")
print(len(wrong), "of", len(result.rows))

result.save("surveys/mine")
th.write_report(["surveys/mine"], "report.html")
