"""The data that flow through pavjax, and the three interfaces it is written against.

Dimension letters, used in every docstring:

    B prompts      N samples per prompt   T tokens        H steps
    S = H + 1 prefixes (the bare prompt, then the trace after each step)
    P prover policies                     V vocabulary    D width     L layers
    W beams        C candidates per beam  K best-of-K     M branches of one prefix

A *step* is what the policy writes up to and including one delimiter, by the exact rule
of `pavjax.steps`; the last step ends with the end-of-sequence token. Step boundaries
are carried as `step_ids` from generation to verifier to reinforcement learning: they
are never searched for in text again.

Arrays of tokens are filled up with 0 on the right, whatever token 0 of a vocabulary
may be: what is real, `prompt_len`, `length` and `step_ids` say, and nothing reads the
rest.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import chex
import jax

from pavjax.steps import StepRule

Params = Any
Cache = Any


@chex.dataclass(frozen=True)
class Rollouts:
    """Traces and how they came about. Leading axes `*B` may be nested, as in [B N].

    `step_ids[t]` is the step, counted from 0, that token t belongs to (a delimiter
    belongs to the step that it ends); -1 in the prompt and in the padding.
    `logprobs[t]` is log pi(token t | tokens before t) of the policy that drew the
    trace, at temperature 1; 0 outside the response.
    """

    tokens: jax.Array  # [*B T] int32, prompt then response, padded with 0
    prompt_len: jax.Array  # [*B] int32
    length: jax.Array  # [*B] int32, prompt and response, end token included
    step_ids: jax.Array  # [*B T] int32
    logprobs: jax.Array  # [*B T] float32
    reward: jax.Array  # [*B] float32, the outcome, 0 or 1


@chex.dataclass(frozen=True)
class PrefixLabels:
    """Monte-Carlo labels: out of `attempts` completions of a prefix, `successes` were
    correct. Counts, not means: shards add up, weights stay honest, and the unbiased
    pass@K, Beta posteriors, hard and soft labels can all still be derived.
    """

    tokens: jax.Array  # [*B T] int32
    prompt_len: jax.Array  # [*B] int32
    step_ids: jax.Array  # [*B T] int32
    successes: jax.Array  # [*B S P] int32
    attempts: jax.Array  # [*B S P] int32


@chex.dataclass(frozen=True)
class Beams:
    """The state of a step-level search over W partial traces of each of B prompts."""

    tokens: jax.Array  # [B W T] int32
    length: jax.Array  # [B W] int32
    score: jax.Array  # [B W] float32, what the search ranks
    done: jax.Array  # [B W] bool, the trace has ended and keeps its score
    carry: Any  # pytree of [B W ...]: what follows each beam as it is copied
    # Pytree of [B W ...] too, but of the beams before a step's candidates were drawn,
    # which read it together: caches.
    shared: Any = None


@chex.dataclass(frozen=True)
class Chunk:
    """What every branch wrote in one go: up to Q tokens, the first `num_tokens` real."""

    tokens: jax.Array  # [G M Q] int32
    logprobs: jax.Array  # [G M Q] float32, of the policy at temperature 1; else 0
    num_tokens: jax.Array  # [G M] int32


@chex.dataclass(frozen=True)
class Slots:
    """Where each branch of a shared prefix stands: it sees the first `prefix_len`
    tokens of its row's prefix and the `valid` ones of its own R suffix slots."""

    prefix_len: jax.Array  # [G M] int32
    valid: jax.Array  # [G M R] bool
    length: jax.Array  # [G M] int32, tokens so far = position of the next one


@chex.dataclass(frozen=True)
class TrainState:
    """All that an update changes. No random key: `fold_in(key, step)` makes each
    step's, so a resumed run draws what the uninterrupted one would have drawn."""

    step: jax.Array  # [] int32
    params: Params
    opt_state: Any


class Policy(NamedTuple):
    """A language model as pure functions; `pavjax.nets` makes them. Caches are pytrees
    of arrays [G ...], of suffixes [G M ...]; a row of one and a branch of the other
    differ along time alone.

    init(key) -> params
    logits(params, tokens [B T], segments=None) -> [B T V] float32: row t predicts token
        t + 1. Tokens see those before them in their own segment [B T], bool or int, and
        positions count those alone: traces that share a row, or padding. On the right
        padding needs no segment of its own, for no token sees a later one
    hidden(params, tokens [B T], segments=None) -> [B T D]: what `logits` projects
    prefill(params, tokens [G T]) -> (hidden [G T D], prefix cache of G rows)
    init_suffix(num_rows, num_branches, num_tokens) -> empty suffix cache
    extend(params, prefix, suffix, tokens [G M Q], positions [G M Q],
           prefix_len [G M], index, valid [G M R]) -> (hidden [G M Q D], suffix):
        writes the keys and values of `tokens` at `index .. index + Q - 1` of the
        suffix cache (R slots); each query sees the first `prefix_len` entries of its
        row's shared prefix cache, the valid slots outside of its chunk, and causally
        those of the chunk; a valid slot is at position prefix_len + (valid slots
        before it), the slots taken for a ring whose newest stand before `index`. Of
        every leaf of the suffix, G and M may be one axis, and stay it: a loop should
        carry it so (an axis M = 1 makes XLA copy the cache in every step)
    unembed(params, hidden [.. D]) -> [.. V] float32
    over_logits(fn, tokens [B T], *readings) -> what `fn(targets, *logits)` says of each
        token by the logits that predict it, [B T]: see `arrays.over_logits`. A reading
        is (params, hidden [B T D]), and there is no array [B T V] of any
    prepare(params) -> params as `extend` and `unembed` read them fastest, to be made
        once before a loop of them
    """

    init: Callable
    logits: Callable
    hidden: Callable
    prefill: Callable
    init_suffix: Callable
    extend: Callable
    unembed: Callable
    over_logits: Callable
    prepare: Callable = lambda params: params


class Verifier(NamedTuple):
    """Estimates, for P provers at once, the probability of success from a prefix.

    init(key, policy_params) -> params: the backbone starts as a copy of a policy
    logits(params, tokens [B T], prompt_len [B], reference_logprobs [B T] or None,
        segments=None) -> [B T P] float32: the logit of V^mu of the prefix that ends with
        token t, t >= prompt_len - 1; without the base policy's log-probs of the tokens,
        a head that needs them computes them. Of rows that hold several traces, each a
        segment [B T], prompt_len [B T] is that of each token's own
    prefill(params, tokens [G T], prompt_len [G]) -> (logits [G P], prefix, state)
        of the bare prompt; `state` holds what `extend` needs of the last token
    init_suffix(num_rows, num_branches, num_tokens) -> empty suffix cache
    extend(params, prefix, suffix, state, chunk, slots, index) -> (logits [G M P],
        suffix, state): reads a further `Chunk` of every branch, scores its end
    """

    init: Callable
    logits: Callable
    prefill: Callable
    init_suffix: Callable
    extend: Callable


class Tokenizer(Protocol):
    """Text to token ids and back.

    encode_prompt(text): a whole prompt, with whatever has to stand before it
    encode(text): what a policy writes after a prompt, without an end token
    decode(ids): the text, without an end token at its end
    decode_batch(tokens [B T], start [B], stop [B]): tokens start .. stop - 1 of every
        row as text, list of B str
    bytes_of(ids): the bytes of each token, which the text is put together of
    reserved_in(text): names in it that a prompt takes for special tokens
    """

    vocab_size: int  # ids are below it; that of the model, if it has more of them
    end_id: int  # written at the end of a demonstration
    step_rule: StepRule  # where steps and traces end
    delimiter: str  # the text that ends a step
    reply_lead: str  # what comes between a prompt and the first step; mostly ""

    def encode_prompt(self, text: str) -> list[int]: ...

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def decode_batch(self, tokens, start, stop) -> list[str]: ...

    def bytes_of(self, ids: Sequence[int]) -> list[bytes]: ...

    def reserved_in(self, text: str) -> list[str]: ...


class Problem(NamedTuple):
    """One problem: the text that is put to the policy and the expected answer. Data
    sets may give a solution, as text or as a list of steps, and a name of their own."""

    prompt: str
    answer: str
    solution: str | list[str] | None = None
    name: str = ""


class Task(NamedTuple):
    """Text problems solved in steps.

    problem(index) -> Problem: the index-th problem, a pure function of the index
    demonstration(problem, rng, error_rate) -> response text, with each step wrong
        with probability `error_rate` (consistently carried on afterwards)
    grade(problem, response) -> bool: by the final answer alone
    grade_all(problems, responses) -> list of bool: the same of many at once, where
        that is faster; None: one after the other
    steps_correct(problem, response) -> [H] bool: the exact oracle, for evaluation
        only; step h is correct if it is well formed and true given the problem and
        the steps before it, and no step before it was wrong. None: there is no oracle,
        and nothing that needs one is measured
    final_answer(response) -> str or None: what the response answers, as votes count
        it; None where it cannot be read
    grading_counts() -> {status: answers} that were graded in this process so far, of a
        grader that may leave some undecided ("timeout", "crash"); None: it never does
    num_problems: of a finite data set; None: as many as one asks for
    splits: {split: indices} of a data set that comes divided; the problems of others
        are divided by a hash of their text (`pavjax.data.problem_ids`)
    """

    name: str
    tokenizer: Tokenizer
    max_prompt_len: int  # tokens
    max_step_len: int  # tokens, delimiter included
    max_steps: int
    max_response_len: int  # tokens, end token included
    problem: Callable[[int], Problem]
    demonstration: Callable[..., str]
    grade: Callable[[Problem, str], bool]
    steps_correct: Callable[[Problem, str], list] | None
    final_answer: Callable[[str], str | None]
    num_problems: int | None = None
    splits: Mapping[str, Sequence[int]] | None = None
    grade_all: Callable[[Sequence, Sequence], list] | None = None
    grading_counts: Callable[[], Mapping[str, int]] | None = None
