"""Real tokenizers, given data and pretrained models in the stages: what a job depends
on, what is refused before any work, and every stage on a tiny random checkpoint."""

import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import building, cli, export, math_checks, sources, tiny_checkpoint
from experiments import run as runner
from experiments.jobs.settings import task_settings
from experiments.pipeline import plan
from experiments.problems import problem_set
from experiments.stages import StageError
from pavjax import data, nets

ROOT = Path(__file__).parents[1]
SPEC = "configs/math_text.py:tiny"


@pytest.fixture(autouse=True, scope="module")
def at_root():
    before = Path.cwd()
    os.chdir(ROOT)
    yield
    os.chdir(before)


def load(*overrides):
    arguments = [f"--config={SPEC}", "--workdir=w", *overrides]
    return cli.parse(arguments, description="").config


def jobs_of(*overrides):
    return {job.name: job for job in plan(load(*overrides))}


def checked(name, *overrides):
    math_checks.check(jobs_of(*overrides)[name])


@pytest.fixture
def problems(tmp_path):
    """A copy of the problems, to be changed."""
    return shutil.copytree("configs/word_problems", tmp_path / "problems")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tiny checkpoint where a user may have put it."""
    path = tmp_path_factory.mktemp("checkpoint") / "model"
    tiny_checkpoint.save(path)
    return path


# ---------------------------------------------------------------- identity


def test_the_tiny_checkpoint_is_the_same_whenever_it_is_made(folder, tmp_path):
    tiny_checkpoint.save(tmp_path / "again")
    names = sorted(file.name for file in folder.iterdir())
    assert names == sorted(file.name for file in (tmp_path / "again").iterdir())
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_changed_file_is_another_job_and_an_equal_copy_of_it_is_not(
    problems, folder, tmp_path
):
    data_flag = f"--config.task.math_text.source={problems}"
    model_flag = f"--config.policies.base.init=hf:{folder}"
    before = jobs_of(data_flag, model_flag)
    assert {n: j.hash for n, j in jobs_of(data_flag, model_flag).items()} == {
        n: j.hash for n, j in before.items()
    }
    test = problems / "test.jsonl"
    test.write_text(test.read_text().replace("birds", "crows"))
    after = jobs_of(data_flag, model_flag)
    assert all(after[name].hash != job.hash for name, job in before.items())
    for name in ("model.safetensors", "tokenizer.json"):
        copy = shutil.copytree(folder, tmp_path / "copy")
        content = sources.content_of(f"hf:{copy}")
        assert content == sources.content_of(f"hf:{folder}")
        raw = (copy / name).read_bytes()
        (copy / name).write_bytes(raw[:-3] + b"abc")
        assert sources.content_of(f"hf:{copy}") != content
        shutil.rmtree(copy)


def test_of_large_weights_the_digest_reads_the_whole_range(tmp_path):
    path = tmp_path / "model.safetensors"
    raw = bytearray(range(256)) * 40_000
    path.write_bytes(raw)
    before = sources.content_of(str(tmp_path))
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert sources.content_of(str(tmp_path)) != before


def test_policies_know_the_checkpoint_they_come_from():
    config = cli.load_config("configs/math_text.py:gemma2_9b")
    assert sources.checkpoint_of(config, "weak") == "hf:google/gemma-2-2b"
    assert (
        sources.checkpoint_of(cli.load_config("configs/arithmetic.py:tiny"), "base")
        == ""
    )
    config.policies.weak.init = "base"
    assert sources.checkpoint_of(config, "weak") == "hf:google/gemma-2-9b"


# ---------------------------------------------------------------- refused before work


def test_what_is_missing_is_named_before_any_work(tmp_path, problems):
    with pytest.raises(StageError, match=r"sft\.base cannot be run: there is no file"):
        runner.run(
            [
                *(f"--config={SPEC}", f"--workdir={tmp_path / 'w'}"),
                f"--config.task.math_text.source={tmp_path / 'none.jsonl'}",
            ]
        )
    assert not (tmp_path / "w" / "sft").exists()
    with pytest.raises(ValueError, match="there is no folder"):
        checked("sft.base", f"--config.policies.base.init=hf:{tmp_path / 'none'}")
    with pytest.raises(StageError, match="needs a tokenizer"):
        jobs_of("--config.policies.base.init=")
    train = problems / "train.jsonl"
    train.write_text(train.read_text().replace('"answer": "2"', '"answer": ""', 1))
    with pytest.raises(ValueError, match=r"train\.jsonl, line 1: the field 'answer'"):
        checked("sft.base", f"--config.task.math_text.source={problems}")


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"vocab_size": 300}))
    with pytest.raises(ValueError, match=r"has \d+ tokens, the model only 300"):
        checked("sft.base", f"--config.policies.base.init=hf:{copy}")


def test_a_verifier_of_another_vocabulary_or_head_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"vocab_size": 500}))
    with pytest.raises(
        StageError, match="vocabulary of 500 tokens, the base policy one"
    ):
        checked("verifier.main", f"--config.verifier.backbone=hf:{copy}")
    with pytest.raises(StageError, match="set verifier.backbone='' or"):
        checked("verifier.main", "--config.verifier.head=sum")
    with pytest.raises(StageError, match=r"may change .* not \['depth'\]"):
        config = cli.load_config(SPEC)
        config.policies.base.model = {"depth": 3}
        plan(config)


def test_long_problems_are_refused_or_dropped_with_their_number(problems):
    source = f"--config.task.math_text.source={problems}"
    short = "--config.task.math_text.max_prompt_len=36"
    with pytest.raises(ValueError, match=r"of 54 problems have prompts of more than"):
        checked("evaluate.sft", source, short)
    few = ("--config.task.num_test=1", "--config.task.math_text.too_long=drop")
    with pytest.warns(UserWarning, match="of 54 problems .* they are dropped"):
        checked("evaluate.sft", source, short, *few)
    answers = "--config.task.math_text.max_response_len=14"
    with pytest.warns(UserWarning, match="train problems have solutions of 14 tokens"):
        checked("evaluate.sft", source, answers, *few)


def test_train_problems_that_are_test_problems_are_refused_or_dropped(problems):
    train, test = problems / "train.jsonl", problems / "test.jsonl"
    leaked = test.read_text().splitlines()[0].replace("test-0", "leak")
    train.write_text(train.read_text() + leaked + "\n")
    source = f"--config.task.math_text.source={problems}"
    with pytest.raises(ValueError, match="1 problems of 'test' are also in 'train'"):
        checked("sft.base", source)
    with pytest.warns(UserWarning, match="1 of 35 train problems are test problems"):
        checked("sft.base", source, "--config.task.math_text.contamination=drop")


def test_all_problems_of_a_data_set_are_asked_for_by_minus_one():
    config = load("--config.task.num_train=-1")
    settings = task_settings(config, "num_train")
    task = building.task_of(settings)
    assert len(problem_set(task, settings, "train").ids) == 34


# ---------------------------------------------------------------- every stage


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All stages, once, on eight simulated devices."""
    workdir = tmp_path_factory.mktemp("math")
    runner.run([f"--config={SPEC}", f"--workdir={workdir}"])
    return workdir


def directory_of(name, workdir):
    return jobs_of()[name].directory(workdir)


@pytest.mark.slow
def test_every_stage_runs_on_a_tiny_checkpoint(whole):
    jobs = plan(load())
    assert {job.stage for job in jobs} >= {
        "sft",
        "collect",
        "rft",
        "verifier",
        "search",
    }
    assert all(job.is_done(whole) for job in jobs)
    results = json.loads(
        (directory_of("verifier.main", whole) / "results.json").read_text()
    )
    assert results["test"]["auc_no_error"] == {"base": None, "base@30": None}
    page = directory_of("report", whole) / "index.html"
    assert page.stat().st_size > 10_000


@pytest.mark.slow
def test_steps_end_with_the_token_that_completes_the_delimiter(whole):
    config = load()
    task = building.task_of(task_settings(config))
    records = data.read_labels(str(directory_of("collect", whole) / "labels"), "train")
    pieces = task.tokenizer.pieces
    merged = 0
    for tokens, ids, length in zip(
        records["tokens"], records["step_ids"], records["length"], strict=True
    ):
        own = np.flatnonzero(ids >= 0)
        texts = [pieces[token] for token in tokens[own]]
        for place, piece in zip(own[:-1], texts[:-1], strict=True):
            last_of_step = ids[place + 1] != ids[place]
            may_end = ids[place] < task.max_steps - 1
            assert last_of_step == (b"\n" in piece and may_end)
            merged += last_of_step and piece != b"\n"
        assert own[-1] == length - 1
    assert merged > 0  # ".\n" is one token


@pytest.mark.slow
def test_the_final_policy_is_what_transformers_loads(whole, tmp_path):
    import torch
    import transformers

    directory = directory_of("rl.pav.seed0", whole)
    out = tmp_path / "policy"
    export.main([f"--config={SPEC}", f"--checkpoint={directory}", f"--out={out}"])
    task = building.task_of(task_settings(load()))
    found = building.load_policy(directory / "checkpoints", task)
    ids = task.tokenizer.encode_prompt(task.problem(0).prompt)
    assert transformers.AutoTokenizer.from_pretrained(out)(task.problem(0).prompt)[
        "input_ids"
    ] == list(ids)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits.numpy()
    logits = found.policy.logits(found.params, np.array([ids], np.int32))
    np.testing.assert_allclose(
        np.asarray(logits)[..., : expected.shape[-1]], expected, atol=1e-4
    )
    # It has been trained: it is not the checkpoint it came from.
    start = nets.load_pretrained(sources.folder_of("hf:tiny"))
    moved = jax.tree.map(
        lambda a, b: float(np.abs(np.asarray(a)[: len(b)] - np.asarray(b)).max()),
        found.params["norm"],
        start.params["norm"],
    )
    assert max(jax.tree.leaves(moved)) > 1e-3


@pytest.mark.slow
def test_the_verifier_is_a_token_classifier_of_transformers(whole, tmp_path):
    import transformers

    directory = directory_of("verifier.main", whole)
    out = tmp_path / "verifier"
    arguments = [f"--config={SPEC}", f"--checkpoint={directory}", f"--out={out}"]
    with pytest.raises(StageError, match="is none of base, base@30"):
        export.main([*arguments, "--prover=strong"])
    export.main([*arguments, "--prover=base@30"])
    theirs = transformers.AutoModelForTokenClassification.from_pretrained(out)
    assert theirs.config.num_labels == 2
