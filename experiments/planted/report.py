"""planted.report: the paper's didactic figures beside what came out here.

in:   results.json of every planted.runs job
out:  index.html, which needs no other file; figures/*.png, figures.csv (every number
      that is drawn), tables/*.csv, and in results.json what was found, in sentences
      python -m experiments.planted --workdir=DIR
"""

from experiments.planted import page
from experiments.planted.results import Arm, Results
from experiments.report import write_report
from pavjax.runtime import processes
from pavjax.tasks import planted


def run(job, workspace):
    if not processes.is_first():
        return  # nothing here is worth dividing
    arms = {}
    for role, source in job.inputs.items():
        reading, _, _ = role.partition(".")
        found = workspace.input_results(role)
        arms[reading, source.settings["gamma"]] = Arm.of(found)
    task = planted.Planted(**job.settings["task"])
    report, findings = page.build(Results(task, job.settings, arms))
    write_report(workspace, report)
    workspace.write_results({"index": "index.html", "findings": findings})
