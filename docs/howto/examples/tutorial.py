"""The tutorial's Python, in one file: `python tutorial.py RUNS/TOUR`, the folder that `make tour` wrote."""

import sys

# --8<-- [start:import]
import theodolite as th

# --8<-- [end:import]

tour = sys.argv[1] if len(sys.argv) > 1 else "runs/tour"

# --8<-- [start:world]
world = th.Shapes().correlate("shape", "colour", strength=0.8)
# --8<-- [end:world]

# --8<-- [start:coverage]
for policy in ("shape:agree,row", "shape,row"):
    found = th.measure_coverage(world, policy)
    print(policy, found.coverage["shape"], found.proxy_bits["colour->shape"])
# --8<-- [end:coverage]

# --8<-- [start:survey]
options = th.SurveyOptions(num_scenes=50)
agree = th.survey_model(f"{tour}/agree/model", world, options, policy="shape:agree,row", title="agree")
print(agree.record.shadows.verdicts["colour"])
for cell in agree.record.shadows.cells:
    if cell.factor in ("shape", "colour") and cell.query == "shape":
        print(f"do({cell.factor}) -> shape answer: {cell.moved_frac:.2f} [{cell.low:.2f}, {cell.high:.2f}]")
agree.save("surveys/agree")
# --8<-- [end:survey]

# --8<-- [start:failures]
print(agree.failures(factor="colour", query="shape").head())
# --8<-- [end:failures]

# --8<-- [start:advise]
advice = th.advise(world, "shape:agree", budget=1000, about=["shape"])
print(advice.together)
# --8<-- [end:advise]

# --8<-- [start:compare]
everywhere = th.survey_model(f"{tour}/all/model", world, options, policy="shape,row", title="all")
everywhere.save("surveys/all")
th.compare("surveys/agree", "surveys/all")
th.write_report(["surveys/agree", "surveys/all"], "report.html")
# --8<-- [end:compare]
