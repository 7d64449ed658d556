"""The whole main path on the micro config: run, run again, killed anywhere."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from faulty_run import MOMENTS
from micro_run import CONFIG, ROOT, assert_same_run, directory_of, jobs_of, python

from experiments import evaluate as evaluate_stage
from experiments import run as runner
from experiments.stages import StageError
from pavjax.runtime.metrics import read_metrics


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


# ---------------------------------------------------------------- running


@pytest.mark.slow
def test_all_stages_end_with_a_table_and_a_report(whole):
    """Aim: under 60 seconds of processor time; printed, for `pytest -s`."""
    print(f"micro run: {whole.first.seconds:.0f} seconds of processor time")
    report = re.search(r"report: (\S+index\.html)", whole.first.output)
    assert Path(report.group(1)).stat().st_size > 10_000
    for job in jobs_of():
        assert job.is_done(whole.workdir)
        assert re.search(
            rf"^{re.escape(job.name)} .* GB", whole.first.output, re.MULTILINE
        )


@pytest.mark.slow
def test_a_beam_of_one_leaves_nothing_to_pick(whole):
    """Its one trace is picked by whomever; only the ORM has to read it for that."""
    record = directory_of("search", whole.workdir) / "results.json"
    found = json.loads(record.read_text())["final_pick"]
    pav, orm, vote = (found[f"by {name}"] for name in ("PAV", "ORM", "vote"))
    assert pav["width"][0] == 1
    assert pav["accuracy"][0] == orm["accuracy"][0] == vote["accuracy"][0]
    assert pav["flops"] == vote["flops"]
    assert all(a < b for a, b in zip(pav["flops"], orm["flops"], strict=True))


@pytest.mark.slow
def test_rl_says_how_long_its_phases_took_and_how_far_sampler_and_trainer_are_apart(
    whole,
):
    """float32 of a model that writes a digit a token: logits below 32, roundings of
    6e-8 of them in sums of 32 terms, two layers deep."""
    rows = read_metrics(directory_of("rl.pav.seed0", whole.workdir) / "metrics.jsonl")
    assert len(rows) == 2
    for row in rows:
        for phase in ("sample", "grade", "score", "update", "evaluate"):
            assert row[f"seconds_{phase}"] > 0
        assert 0 <= row["logprob_gap"] <= row["logprob_gap_max"] < 1e-4


@pytest.mark.slow
def test_a_second_run_does_nothing_and_says_so(whole):
    def contents():
        files = [path for path in whole.workdir.rglob("*") if path.is_file()]
        return {path: path.stat().st_mtime_ns for path in files}

    before = contents()
    again = python(
        *("-m", "experiments.run", CONFIG, f"--workdir={whole.workdir}"),
        cache=whole.cache,
    )
    assert again.status == 0
    assert (
        f"nothing to do: all {len(jobs_of())} stage runs are complete" in again.output
    )
    assert "index.html" in again.output
    changed = {
        path.name for path, time in contents().items() if before.get(path) != time
    }
    assert changed <= {"latest.json"}


@pytest.mark.slow
def test_a_changed_alpha_would_run_only_pav_rl_and_the_report(whole, capsys):
    runner.run(
        [CONFIG, f"--workdir={whole.workdir}", "--config.rl.alpha=1.5", "--dry_run"]
    )
    states = {
        line.split()[0]: line.split()[2]
        for line in capsys.readouterr().out.splitlines()[1:-1]
    }
    assert {name for name, state in states.items() if state != "done"} == {
        "rl.pav.seed0",
        "report",
    }


@pytest.mark.slow
def test_eight_devices_run_the_same_path(whole, tmp_path):
    """A mesh of 4 x 2. Sums in another order, over 200 updates with a large learning
    rate: losses agree to some digits only. The samples are the same, but for a draw
    that falls on the other side of a rounding error: hence 2 % of the tokens."""
    done = python(
        *("-m", "experiments.run", CONFIG, f"--workdir={tmp_path}"),
        "--config.mesh.fsdp=2",
        cache=whole.cache,
        num_devices=8,
    )
    assert done.status == 0, done.output
    for job in jobs_of():
        if job.stage == "report":
            continue  # it shows the mesh, so it is another job
        ours, theirs = (
            json.loads((job.directory(workdir) / "DONE.json").read_text())
            for workdir in (tmp_path, whole.workdir)
        )
        assert ours["hardware"]["devices"].startswith("8 x")
        for counter in ("tokens_generated", "tokens_scored", "tokens_trained"):
            np.testing.assert_allclose(ours[counter], theirs[counter], rtol=0.02)
    sft = [
        json.loads((directory_of("sft.base", workdir) / "results.json").read_text())
        for workdir in (tmp_path, whole.workdir)
    ]
    losses = [results["validation_loss"] for results in sft]
    np.testing.assert_allclose(*losses, rtol=1e-2)


@pytest.mark.slow
def test_provers_are_compared_on_top_of_the_same_runs(whole, copy):
    """Counts, search and RL of a family; the policies and verifiers are there."""
    done = python(
        *("-m", "experiments.provers", "--config=configs/provers.py:micro"),
        *(f"--workdir={copy}", "--config.rl.seeds=0,"),
        cache=whole.cache,
    )
    assert done.status == 0, done.output
    assert "sft.base  ->" not in done.output
    page = Path(re.search(r"page: (\S+)index\.html", done.output).group(1))
    results = json.loads((page / "results.json").read_text())
    assert set(results["rank_correlations"]["beam of 2"]) == {
        *("distinguishability", "alignment", "sum")
    }
    tables = {file.name: file.read_text() for file in (page / "tables").iterdir()}
    rows = tables["provers.csv"].splitlines()
    names = [row.split(",")[0] for row in rows]
    assert names == ["prover", "base", "Bo4(base)", "base@50", "base+base@50"]
    # the beams of provers are compared with the plain one on the same problems
    assert "beam of 2" in rows[0]
    assert (page / "figures/rl_average_accuracy_sum.png").stat().st_size > 5_000


# ---------------------------------------------------------------- killed


@pytest.fixture(scope="session")
def killed(whole, tmp_path_factory):
    """One run that was killed half-way in every job, and continued as often."""
    workdir, outputs = tmp_path_factory.mktemp("killed"), {}
    arguments = CONFIG, f"--workdir={workdir}"
    for victim in MOMENTS:
        done = python("tests/faulty_run.py", victim, *arguments, cache=whole.cache)
        assert done.status == -9, done.output
        directory = directory_of(victim, workdir)
        assert directory.exists() and not (directory / "DONE.json").exists()
        outputs[victim] = done.output
    done = python("-m", "experiments.run", *arguments, cache=whole.cache)
    assert done.status == 0, done.output
    return workdir, "".join(outputs.values()) + done.output


@pytest.mark.slow
@pytest.mark.parametrize("name", [job.name for job in jobs_of()])
def test_a_killed_and_continued_run_ends_with_the_same_bits(whole, killed, name):
    assert_same_run(name, killed[0], whole.workdir)


@pytest.mark.slow
def test_training_went_on_from_its_checkpoints(killed):
    """The runs of the tests above did not simply start again."""
    for job, step, total in (
        ("sft.base", 50, 200),
        ("rft", 1, 2),
        ("verifier.main", 2, 4),
        ("rl.orm.seed0", 1, 2),
    ):
        assert re.search(rf"{job}: continuing after {step} of {total} ", killed[1])


# ---------------------------------------------------------------- one stage, one error


def run_stage(stage, *arguments):
    runner.run([CONFIG, *map(str, arguments)], stage)


@pytest.mark.slow
def test_a_stage_whose_input_was_cut_short_names_it_and_the_command(copy):
    collect = directory_of("collect", copy)
    shutil.rmtree(directory_of("rft", copy))
    (collect / "DONE.json").unlink()
    with pytest.raises(StageError) as caught:
        run_stage("rft", f"--workdir={copy}")
    message = str(caught.value)
    assert "collect" in message and "half-done" in message
    assert str(collect / "DONE.json") in message
    assert f"python -m experiments.collect {CONFIG} --workdir={copy}" in message


@pytest.mark.slow
def test_a_batch_that_does_not_fit_the_mesh_names_the_field(tmp_path):
    """Here are eight devices."""
    with pytest.raises(StageError, match=r"sft\.batch_size = 30 must be divisible by"):
        run_stage("sft", f"--workdir={tmp_path}", "--config.sft.batch_size=30")


@pytest.mark.slow
def test_a_loss_that_becomes_nan_names_the_steps_and_what_to_do(tmp_path):
    with pytest.raises(StageError, match=r"NaN or infinite between steps \d+ and \d+"):
        run_stage(
            "sft", f"--workdir={tmp_path}", "--config.policies.base.learning_rate=1e30"
        )


# ---------------------------------------------------------------- evaluate alone


def evaluated(capsys, *arguments):
    evaluate_stage.main([CONFIG, "--num_samples=4", *map(str, arguments)])
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_evaluate_prints_the_quality_of_a_policy(whole, capsys):
    """The same problems, samples and key as in the stage, hence the same numbers; up
    to a sample that falls otherwise for another compilation's rounding."""
    directory = directory_of("rft", whole.workdir)
    found = evaluated(capsys, f"--checkpoint={directory / 'checkpoints'}")
    stage = directory_of("evaluate.rft", whole.workdir) / "results.json"
    expected = json.loads(stage.read_text())
    assert found["kind"] == "policy"
    assert found["n"] == expected["n"] == [1, 2, 4]
    assert abs(found["accuracy"][0] - expected["accuracy"][0]) < 2.5 / (8 * 4)
    fewer = evaluated(capsys, f"--checkpoint={directory}", "--config.task.num_test=4")
    assert fewer["num_problems"] == 4
    # Any step may be asked for, and the job's own directory does as well.
    sft = directory_of("sft.base", whole.workdir)
    assert evaluated(capsys, f"--checkpoint={sft}", "--step=50")["step"] == 50
    # An RL run saves its baseline beside the policy.
    rl = directory_of("rl.pav.seed0", whole.workdir)
    assert evaluated(capsys, f"--checkpoint={rl}")["kind"] == "policy"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["verifier.main", "orm"])
def test_evaluate_judges_fresh_traces_with_a_verifier(whole, capsys, name):
    directory = directory_of(name, whole.workdir)
    policy = directory_of("sft.base", whole.workdir)
    found = evaluated(capsys, f"--checkpoint={directory}", f"--policy={policy}")
    assert found["kind"] == "verifier"
    assert found["num_traces"] == 8 * 4
    heads = ["base"] if name == "orm" else ["base", "base@50"]
    assert list(found["auc_no_error"]) == heads
    assert all(0 <= auc <= 1 for auc in found["auc_no_error"].values())
    for part in ("all_prefixes", "whole_traces"):
        assert 0 <= found[part]["ece"] <= 1
        assert found[part]["loss"] > 0


@pytest.mark.slow
def test_evaluate_of_the_wrong_thing_says_what_is_right(whole):
    def main(*arguments):
        evaluate_stage.main([*map(str, arguments)])

    verifier = directory_of("verifier.main", whole.workdir)
    policy = directory_of("sft.base", whole.workdir)
    with pytest.raises(StageError, match="add --policy=DIR"):
        main(CONFIG, f"--checkpoint={verifier}")
    with pytest.raises(StageError, match="holds a 'verifier', not a policy"):
        main(CONFIG, f"--checkpoint={verifier}", f"--policy={verifier}")
    other = "--config=configs/countdown.py:micro"
    with pytest.raises(StageError, match=r"task 'countdown'.*\n.*of another model"):
        main(other, f"--checkpoint={policy}")
    with pytest.raises(StageError, match="no complete checkpoint"):
        main(CONFIG, f"--checkpoint={whole.workdir}")
