"""report: one self-contained page about an experiment.

in:   results.json and DONE.json of every other stage run
out:  index.html, which needs no other file; figures/*.png, tables/*.csv, figures.csv
      (every number that is drawn), summary.csv, config.json
      python -m experiments.report --config=configs/arithmetic.py:tiny --workdir=work/tiny

What a config leaves out, or what a run could not measure, becomes a sentence in its
place. See experiments/reporting/.
"""

from experiments import run as runner
from experiments.reporting import goals, page, summary
from experiments.reporting.results import load
from pavjax.runtime import processes
from pavjax.runtime.atomic import write_bytes_atomic


def run(job, workspace):
    if not processes.is_first():
        return  # nothing here is worth dividing
    results = load(job, workspace.inputs)
    task = results.config["task"]["name"]
    with workspace.progress(page.NUM_FIGURES, unit="figures") as progress:
        report = page.build(results, f"pavjax: {task}", progress.update)
    write_report(workspace, report)
    workspace.write_results(
        {
            "index": "index.html",
            "summary": [list(row) for row in summary.summary_table(results)],
            "goals": [
                goal._asdict()
                for goal in goals.judge(results)
                if goal.status != "measured"  # wall times are no results
            ],
        }
    )


def write_report(workspace, report):
    """All files of a `Report`; its flaws are logged."""
    for flaw in report.flaws:
        workspace.log(f"could not be shown: {flaw}")
    for path, data in report.files.items():
        write_bytes_atomic(workspace.directory / path, data)


if __name__ == "__main__":
    runner.main("report")
