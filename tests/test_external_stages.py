"""Published verifiers in the stages search and rl: planned, asked, paid for."""

import functools
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_main_path import python
from text_tokenizers import small
from tiny_models import random_params

from experiments import building, cli, external_judge, rl, rl_metrics
from experiments import run as runner
from experiments.external_search import ExternalSearcher
from experiments.jobs.settings import task_settings
from experiments.pipeline import plan
from experiments.problems import problem_set
from experiments.rl_metrics import Stopwatch
from experiments.search_methods import Searcher, plain_rule
from experiments.stages import StageError
from experiments.tiny_checkpoint import folder as tiny_folder
from pavjax import arrays, nets, provers
from pavjax.nets.step_heads import head_logit, head_of
from pavjax.rl import CreditRule
from pavjax.step_scorers import ExternalVerifier, load_scorer
from pavjax.tasks import encoding, math_text

ROOT = Path(__file__).parents[1]
MICRO = "--config=configs/arithmetic.py:micro"
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random two-label token classifier, as TRL and our export write them."""
    path = tmp_path_factory.mktemp("classifier") / "model"
    nets.save_verifier(
        *(path, own_params(), model().config),
        like=model(),
        tokenizer=tiny_folder(),
    )
    return path


@functools.cache
def model():
    return nets.load_pretrained(tiny_folder())


def own_verifier():
    width = model().config.width
    return nets.make_verifier(
        nets.make_policy(model().config), head="value", num_provers=1, width=width
    )


@functools.cache
def own_params():
    verifier, backbone = own_verifier(), model().params
    heads = random_params(lambda key: verifier.init(key, backbone)["heads"], KEY)
    return {"backbone": backbone, "heads": heads}


def micro_flags(folder):
    return [
        MICRO,
        *(f"--config.{stage}.verifier=hf:{folder}" for stage in ("search", "rl")),
        # The method of this config goes on training its verifier.
        "--config.rl.variants.pav.refresh_learning_rate=0.0",
        "--config.prover=Bo4(pi)",
    ]


def jobs_of(*flags):
    config = cli.parse([*flags, "--workdir=w"], description="").config
    return {job.name: job for job in plan(config)}


# ---------------------------------------------------------------- planned


def test_who_asks_a_published_verifier_waits_for_none_of_ours(folder):
    flags = micro_flags(folder)
    jobs = jobs_of(*flags)
    assert not {job.stage for job in jobs.values()} & {"verifier"}
    assert set(jobs["search"].inputs) == {"base"}
    assert "verifier" not in jobs["rl.pav.seed0"].inputs
    only_search = jobs_of(*[flag for flag in flags if "rl.verifier" not in flag])
    assert "verifier" in only_search["rl.pav.seed0"].inputs and "orm" not in only_search
    # Outcome RL asks nobody: it is the same run whatever the others ask.
    other = jobs_of(*flags, "--config.external.root=0.25")
    assert other["rl.orm.seed0"].hash == jobs["rl.orm.seed0"].hash
    assert other["rl.pav.seed0"].hash != jobs["rl.pav.seed0"].hash


def test_changed_weights_are_another_job(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    before = jobs_of(*micro_flags(copy))["search"].hash
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-3] + b"abc")
    assert jobs_of(*micro_flags(copy))["search"].hash != before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["prover=base@50"], "prover='base@50' asks for values that a published"),
        (["prover=auto"], "may choose 'base@50'"),
        (["rl.variants.pav.prover=base@50"], "pav: rl.prover='base@50' asks for"),
        (["external.meaning=rewards"], "Bo4.*external.meaning='rewards'; use 'pi'"),
        (["search.verifier=mine.py"], "write 'hf:' and a folder"),
        (
            ["rl.variants.pav.refresh_learning_rate=0.1"],
            "set rl.refresh_learning_rate=0 with it",
        ),
    ],
)
def test_what_its_one_column_cannot_give_is_refused_while_planning(
    folder, flags, words
):
    changes = [f"--config.{flag}" for flag in flags]
    with pytest.raises(StageError, match=words):
        jobs_of(*micro_flags(folder), *changes)


def test_a_folder_that_is_no_verifier_is_refused_before_any_work(folder, tmp_path):
    def run(verifier, *flags):
        runner.run([*micro_flags(verifier), f"--workdir={tmp_path / 'w'}", *flags])

    with pytest.raises(StageError, match=r"search cannot be run: there is no folder"):
        run(tmp_path / "none")
    with pytest.raises(StageError, match="has no head of a verifier.* name the kind"):
        run(tiny_folder())
    with pytest.raises(StageError, match="external.meaning='odds': choose one of"):
        run(
            folder,
            "--config.external.meaning=odds",
            "--config.prover=pi",
            "--config.rl.variants.pav.prover=pi",
        )
    assert not (tmp_path / "w" / "sft").exists()


# ---------------------------------------------------------------- asked


class TokenJudge(external_judge.ExternalJudge):
    """An exported verifier that is given our tokens, where others get texts."""

    def __init__(self, folder, task):
        super().__init__(f"hf:{folder}", "base")
        found = nets.load_pretrained(folder, classifier=True)
        head = head_of(found.head, found.config.width, folder)
        policy = nets.make_policy(found.config)
        self.task, self.values = task, ExternalVerifier((), task)
        self.logits = jax.jit(
            lambda tokens: head_logit(head, policy.hidden(found.params, tokens))
        )

    def trace_values(self, tokens, step_ids, prompt_len):
        values = np.asarray(jax.nn.sigmoid(self.logits(tokens)))
        num_prefixes = self.task.max_steps + 1
        ends = arrays.prefix_ends(
            jnp.asarray(step_ids), jnp.asarray(prompt_len), num_prefixes=num_prefixes
        )
        return np.take_along_axis(values, np.asarray(ends), axis=1)[..., None]

    def prefix_values(self, tokens, prompt_len, length):
        padded = np.zeros((64, tokens.shape[1]), np.int32)  # one program for all
        padded[: len(tokens)] = tokens
        values = np.asarray(jax.nn.sigmoid(self.logits(padded)))
        return values[np.arange(len(tokens)), length - 1, None]


@functools.cache
def math_task():
    config = cli.load_config("configs/math_text.py:tiny")
    settings = task_settings(config, "num_test")
    task = building.task_of(settings)
    return config, task, problem_set(task, settings, "test")


@pytest.fixture(scope="module")
def both(folder):
    """Our own verifier, and the same one exported and asked as a published one."""
    config, task, problems = math_task()
    fields = {
        name: getattr(model().config, name)
        for name in building.evaluate.ModelSize._fields
    }
    size = building.evaluate.ModelSize(**fields)
    base = building.Model(nets.make_policy(model().config), model().params, None, size)
    judge = building.Judge(own_verifier(), own_params(), ["base"], size, False)
    section = config.search.to_dict() | {"rows_per_batch": 64}
    own = Searcher(task, base, judge, judge, section)
    outside = ExternalSearcher(task, base, TokenJudge(folder, task), section)
    return own, outside, problems


CLOSE = {"rtol": 0, "atol": 1e-5}  # two layers in float32, and a sigmoid


@pytest.mark.slow
def test_our_exported_verifier_guides_the_search_that_ours_guides(both):
    own, outside, problems = both
    rule = {"prover": provers.Prover.of(0, 1, k=4), "alpha": 0.5}
    one, two = (
        searcher.beam(problems, KEY, 8, rule, all_picks=True)
        for searcher in (own, outside)
    )
    for name in ("chosen_tokens", "chosen_length", "written", "correct", "final_len"):
        np.testing.assert_array_equal(one[name], two[name])
    np.testing.assert_allclose(one["claimed"], two["claimed"], **CLOSE)
    assert one["claimed"].std() > 0.01
    pools = [searcher.pool(problems, KEY, 4) for searcher in (own, outside)]
    for name in ("values", "orm"):
        np.testing.assert_allclose(*(pool[name] for pool in pools), **CLOSE)


@pytest.mark.slow
def test_our_exported_verifier_gives_the_values_that_ours_gives_in_rl(both):
    own, outside, problems = both
    from experiments import drawing

    sampler = drawing.make_sampler(own.task, own.base.policy, 4)
    drawn = sampler(own.base.params, KEY, problems.tokens, problems.prompt_len)
    rule = CreditRule(alpha=1.0, prover=provers.Prover.of(0, 1))
    found = []
    for searcher in (own, outside):
        read = rl.make_reader(
            own.base.policy, searcher.judge, rule, own.task.max_steps + 1
        )
        params = own.base.params, searcher.judge.params
        found.append(read(*params, drawn, Stopwatch(params, on=False)))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_allclose(found[0][1], found[1][1], **CLOSE)


def test_it_is_asked_about_the_problem_and_not_about_the_prompt(tmp_path):
    rows = [{"problem": f"Let n be {i}. Is {{n}} 4?", "answer": "4"} for i in range(3)]
    sizes = {"max_prompt_len": 99, "max_step_len": 9, "max_steps": 2}
    plain = {"prompt": "Problem: {problem}\nSolution:\n", "chat": False, "system": ""}
    chat = {"prompt": "{problem}\nThink.", "chat": True, "system": "Be brief."}
    for options, tokenizer in (
        (plain, small("merged")),
        (chat, small("merged", chat=True)),
    ):
        task = math_text(
            *(rows, tokenizer),
            grade=None,
            final_answer=None,
            max_response_len=9,
            **sizes,
            **options,
        )
        judge = ExternalVerifier(
            (),
            task,
            problem_of=external_judge.problem_reader(
                task, {"name": "math_text", "options": options}
            ),
        )
        problems = [task.problem(i) for i in range(3)]
        found = judge.problems_of(*encoding.encode_prompts(task, problems))
        assert found == [row["problem"] for row in rows]


# ---------------------------------------------------------------- paid for


def test_every_candidate_is_paid_for_from_its_first_token(both, folder):
    """Against what the scorer was given: the tokens of every text, by problem."""
    _, outside, problems = both
    asked = []
    judge = external_judge.ExternalJudge(f"hf:{folder}", "base")
    score = load_scorer(folder, on_read=judge.note)

    def noted(problem_texts, traces):
        asked.extend(zip(problem_texts, traces, strict=True))
        return score(problem_texts, traces)

    settings = {"name": "math_text", "options": math_task()[0].task.math_text.to_dict()}
    reader = external_judge.problem_reader(outside.task, settings)
    judge.values = ExternalVerifier((noted,), outside.task, problem_of=reader)
    searcher = ExternalSearcher(outside.task, outside.base, judge, outside.section)
    found = searcher.beam(problems, KEY, 2, plain_rule(1))
    tokenizer = outside.task.tokenizer

    def length_of(problem, steps):  # TRL's way: piece by piece
        pieces = [problem, *(part for step in steps for part in (step, "\n"))]
        return sum(len(tokenizer.encode(piece)) for piece in pieces if piece)

    texts = judge.values.problems_of(problems.tokens, problems.prompt_len)
    expected = [
        sum(length_of(p, steps) for p, steps in asked if p == text) for text in texts
    ]
    np.testing.assert_array_equal(found["read_tokens"], expected)
    costs = searcher.beam_costs(found, 2)
    assert costs["tokens_scored"] == sum(expected)
    # Of several steps, each candidate of the later ones holds the earlier ones again.
    assert costs["tokens_scored"] > costs["tokens_generated"]
    size = outside.base.size._replace(vocab_size=0)
    flops = sum(
        float(building.evaluate.sequence_flops(size, length_of(*pair)))
        for pair in asked
    )
    np.testing.assert_allclose(found["read_flops"].sum(), flops, rtol=1e-12)
    own = searcher._once_flops(outside.base.size, found, 2)
    np.testing.assert_allclose(
        searcher.beam_flops(found, 2), own + flops / len(texts), rtol=1e-12
    )


# ---------------------------------------------------------------- run, and killed


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def results_of(directory):
    done = json.loads((directory / "DONE.json").read_text())
    names = ("tokens_generated", "tokens_scored", "tokens_trained", "flops")
    return (directory / "results.json").read_text(), {n: done[n] for n in names}


@pytest.mark.slow
def test_all_stages_run_with_it_and_go_on_where_they_were_killed(
    folder, tmp_path, cache
):
    flags = [*micro_flags(folder), f"--workdir={tmp_path}"]
    first = python("-m", "experiments.run", *flags, cache=cache)
    assert first.status == 0, first.output
    jobs = jobs_of(*flags)
    names = "search", "rl.orm.seed0", "rl.pav.seed0"
    found = {name: results_of(jobs[name].directory(tmp_path)) for name in names}
    for name in ("search", "rl.pav.seed0"):
        assert json.loads(found[name][0])["verifier"] == f"hf:{folder}"
    orm, pav = (found[name][1] for name in names[1:])
    # Its reading comes on top of the KL's: the response again, and the prompt.
    assert pav["tokens_scored"] > 2 * orm["tokens_scored"] > 0
    assert pav["flops"] > orm["flops"]
    for name in ("search", "rl.pav.seed0"):
        shutil.rmtree(jobs[name].directory(tmp_path))
        killed = python("tests/faulty_run.py", name, *flags, cache=cache)
        assert killed.status == -9, killed.output
        again = python("-m", "experiments.run", *flags, cache=cache)
        assert again.status == 0, again.output
        assert results_of(jobs[name].directory(tmp_path)) == found[name]


def test_pieces_of_a_phase_add_up(monkeypatch):
    """A published verifier is asked between two pieces of "sample", as the host has
    them; the phases are all of the time."""
    times = iter([0.0, 1.0, 3.0, 7.0, 15.0])
    monkeypatch.setattr(rl_metrics.time, "perf_counter", lambda: next(times))
    watch = Stopwatch((), on=True)
    for name in ("sample", "score", "sample", "update"):
        watch.lap(name)
    assert watch.seconds == {
        "seconds_sample": 5.0,
        "seconds_score": 2.0,
        "seconds_update": 8.0,
    }
