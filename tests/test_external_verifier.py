"""Any score(problems, traces) in search and in RL, with the exact oracle of arithmetic
in its place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pavjax import guided_decoding, provers, rl
from pavjax.decoding import StepLimits
from pavjax.step_scorers import ExternalVerifier
from pavjax.tasks import arithmetic, encoding
from pavjax.types import Policy, Problem, Rollouts

TASK = arithmetic(num_digits=2)
PROBLEM = Problem(prompt="59+83=\n", answer="142")
RIGHT = "9+3+0=12\n5+8+1=14\n#142"
HOPE = 0.4  # of the right last digit in each of the two sums
LIMITS = StepLimits(TASK.max_steps, TASK.max_step_len, TASK.tokenizer.step_rule)
B = 64


def oracle(problems, traces):
    """Is nothing wrong so far? By the task itself."""
    assert set(problems) <= {"59+83="}
    return [
        [float(right) for right in TASK.steps_correct(PROBLEM, "\n".join(steps))]
        for steps in traces
    ]


def writer():
    """(Policy, params) that writes the solution by position, the last digit of each
    sum at random, right with probability `HOPE`."""
    ids = TASK.tokenizer.encode(PROBLEM.prompt + RIGHT) + [TASK.tokenizer.end_id]
    num_positions = TASK.max_prompt_len + LIMITS.max_steps * LIMITS.max_step_len
    table = np.full((num_positions + 1, TASK.tokenizer.vocab_size), -np.inf)
    table[:, TASK.tokenizer.end_id] = 0
    table[np.arange(len(ids) - 1)] = -np.inf
    table[np.arange(len(ids) - 1), ids[1:]] = 0
    digits = TASK.tokenizer.encode("0123456789")
    for line_end in (8, 17):  # of the response
        position = len(PROBLEM.prompt) + line_end - 2
        right = ids[position + 1]
        table[position, digits] = np.log((1 - HOPE) / 9)
        table[position, right] = np.log(HOPE)

    def hidden(params, tokens):
        rows = params[: tokens.shape[1]]
        return jnp.broadcast_to(rows, (tokens.shape[0], *rows.shape))

    policy = Policy(
        init=None,
        logits=hidden,
        hidden=hidden,
        prefill=lambda params, tokens: (hidden(params, tokens), ()),
        init_suffix=lambda num_rows, num_branches, num_tokens: (),
        extend=lambda params, prefix, suffix, tokens, positions, *_: (
            params[positions],
            suffix,
        ),
        unembed=lambda params, hidden: hidden,
        over_logits=None,
    )
    return policy, jnp.array(table, jnp.float32)


def searched(width, candidates, judge=None, alpha=0.0):
    """(grades [B W], values [B W]) of a search for `B` copies of the problem."""
    policy, params = writer()
    judge = judge or ExternalVerifier((oracle,), TASK)
    search = guided_decoding.make_scored_search(
        judge.prefix_values,
        policy=policy,
        width=width,
        candidates=candidates,
        limits=LIMITS,
    )
    tokens, prompt_len = encoding.encode_prompts(TASK, [PROBLEM] * B)
    score_rule = guided_decoding.effective_reward_rule(
        base=0, prover=provers.Prover.of(0, 1), alpha=alpha
    )
    beams, values, written = search(
        params, jax.random.key(0), tokens, prompt_len, score_rule
    )
    assert written.shape == (B, LIMITS.max_steps)
    rows = np.asarray(beams.tokens).reshape(B * width, -1)
    texts = encoding.decode_responses(
        *(TASK, rows, np.repeat(prompt_len, width), np.asarray(beams.length).ravel())
    )
    # The answer is written by heart here, so that the steps tell who is right.
    grades = np.array([float(all(TASK.steps_correct(PROBLEM, text))) for text in texts])
    return grades.reshape(B, width), np.asarray(values)[..., 0]


def test_a_beam_search_by_the_oracle_finds_more_than_as_many_samples_hold():
    """Eight candidates a step against Pass@8 of a policy that is right with 0.4^2:
    0.75. By hand the beam solves 0.95 of 64 problems, give or take 0.03."""
    grades, values = searched(2, 4)
    np.testing.assert_array_equal(grades, values)  # what the oracle says is so
    pass_at_8 = 1 - (1 - HOPE**2) ** 8
    assert grades[:, 0].mean() >= 0.87 > pass_at_8
    np.testing.assert_array_equal(grades[:, 0], grades.max(axis=1))
    # The oracle's differences rank as its values do: a step is right, or it is not.
    other, _ = searched(2, 4, alpha=1.0)
    assert other[:, 0].mean() >= 0.87


def test_best_of_n_by_the_oracle_is_pass_at_n():
    """Width 8 and one candidate each: eight samples, of which none is dropped."""
    grades, values = searched(8, 1)
    best = np.take_along_axis(grades, values.argmax(1)[:, None], 1)[:, 0]
    np.testing.assert_array_equal(best, grades.max(axis=1))
    expected = 1 - (1 - HOPE**2) ** 8
    # four standard errors of 64 problems
    assert abs(best.mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / B)


# ---------------------------------------------------------------- RL

WRONG = ("9+3+0=12\n5+8+1=15\n#152", "9+3+0=13\n5+8+1=14\n#143")
REWARDS = (1, 0, 0)
PROVER = provers.Prover.of(0, 1)


def rollouts():
    """One problem, three samples."""
    responses = [RIGHT, *WRONG]
    found = encoding.encode_demonstrations(TASK, [PROBLEM] * 3, responses)
    found = {name: jnp.asarray(x)[None] for name, x in found.items()}
    zeros = jnp.zeros(found["tokens"].shape)
    return Rollouts(**found, logprobs=zeros, reward=jnp.array([REWARDS], jnp.float32))


@pytest.mark.parametrize(
    ("meaning", "process"),
    [
        # V = 0.5 -> 1 1 1, 1 0 0, 0 0 0
        ("values", [[0.5, 0, 0], [0.5, -1, 0], [-0.5, 0, 0]]),
        # the scores themselves, not their differences
        ("rewards", [[1, 1, 1], [1, 0, 0], [0, 0, 0]]),
    ],
)
def test_credits_by_the_oracle_are_those_by_hand(meaning, process):
    judge = ExternalVerifier((oracle,), TASK, meaning=meaning)
    rule = rl.CreditRule(alpha=3.0, prover=PROVER)
    drawn = rollouts()
    batch = rl.credits_of_values(
        *(judge.trace_values(*rl.flat(drawn)), drawn, rule),
        num_prefixes=TASK.max_steps + 1,
        baseline="none",
    )
    step_ids = np.asarray(batch["step_ids"])
    per_token = np.take_along_axis(np.array(process), np.maximum(step_ids, 0), axis=1)
    per_token = np.where(step_ids >= 0, per_token, 0)
    np.testing.assert_allclose(batch["process"], per_token, atol=1e-6)
    outcome = np.where(step_ids >= 0, np.array(REWARDS)[:, None], 0)
    np.testing.assert_allclose(batch["credits"], outcome + 3 * per_token, atol=1e-6)


def test_scores_as_logits_roots_and_several_columns():
    flat = rollouts()
    judge = ExternalVerifier(
        (
            lambda p, t: [[0.0] * len(s) for s in t],
            lambda p, t: [[9.0] * len(s) for s in t],
        ),
        TASK,
        scale="logit",
        root=lambda problems: np.array([0.1, 0.2, 0.3]),
    )
    values = judge.trace_values(flat.tokens[0], flat.step_ids[0], flat.prompt_len[0])
    assert values.shape == (3, TASK.max_steps + 1, 2) and values.dtype == np.float32
    np.testing.assert_allclose(
        values[:, 0], [[0.1] * 2, [0.2] * 2, [0.3] * 2], rtol=1e-6
    )
    np.testing.assert_allclose(values[:, 1:, 0], 0.5)
    np.testing.assert_allclose(values[:, 1:, 1], 1 / (1 + np.exp(-9)), rtol=1e-6)


@pytest.mark.parametrize(
    ("scorer", "options", "message"),
    [
        (lambda p, t: [[0.5]] * 3, {}, "trace 0: 1 scores for 3 steps"),
        (lambda p, t: [[2.0] * 3] * 3, {}, "the score of step 0 is 2, no probability"),
        (lambda p, t: [[0.5]] * 3, {"meaning": "rewards"}, r"\[1, 1, 1\] rewards for"),
        (lambda p, t: [[np.nan] * 3] * 3, {"meaning": "rewards"}, "not finite"),
        (oracle, {"meaning": "differences"}, "must be one of"),
    ],
)
def test_scores_that_do_not_fit_are_refused(scorer, options, message):
    flat = rollouts()
    with pytest.raises(ValueError, match=message):
        ExternalVerifier((scorer,), TASK, **options).trace_values(
            flat.tokens[0], flat.step_ids[0], flat.prompt_len[0]
        )
