"""provers.report: what each prover promised beside what it brought.

in:   the counts of the complementarity stage, a search and RL with every prover
out:  index.html, which needs no other file; figures/*.png, figures.csv, tables/*.csv,
      and in results.json rank correlations and what was found, in sentences
      python -m experiments.provers --config=... --workdir=DIR
"""

import math

from experiments.provers import page, results
from experiments.provers.results import PREDICTIONS
from experiments.report import write_report
from pavjax.runtime import processes


def run(job, workspace):
    if not processes.is_first():
        return  # nothing here is worth dividing
    inputs = {
        role: (directory, workspace.input_results(role))
        for role, directory in workspace.inputs.items()
    }
    found = results.load(job.settings, inputs)
    report, findings = page.build(found)
    write_report(workspace, report)
    workspace.write_results(
        {
            "index": "index.html",
            "findings": findings,
            "rank_correlations": {
                outcome.name: {
                    name: finite(found.correlation(name, outcome))
                    for name in PREDICTIONS
                }
                for outcome in found.outcomes
            },
        }
    )


def finite(interval):
    """[estimate, low, high]; None where nothing is ranked."""
    return [None if math.isnan(x) else float(x) for x in interval]
