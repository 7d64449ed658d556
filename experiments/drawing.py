"""Drawing traces with a policy, and grading them."""

import collections

import jax
import jax.numpy as jnp
import numpy as np

from pavjax import decoding
from pavjax.runtime import local_work, processes, sharding
from pavjax.tasks import encoding
from pavjax.types import Rollouts

CPU_SLOTS, MOST_SLOTS = 64, 512
SLOT_SHARE = 0.25  # of an accelerator's memory, for what the slots have written


def step_limits(task):
    """How long the steps of a task may be, and how they end, for a search."""
    return decoding.StepLimits(
        max_steps=task.max_steps,
        max_step_len=task.max_step_len,
        rule=task.tokenizer.step_rule,
        max_response_len=task.max_response_len,
    )


def decode_slots(policy, max_tokens, memory=None):
    """How many traces a group of devices writes at once; the others wait in the queue.
    What is drawn does not depend on it. A processor is fastest while the caches of all
    slots stay close to it; an accelerator reads its weights once for all slots, and has
    as many as `SLOT_SHARE` of its memory holds the caches of.

    memory: bytes of one device; None: of those that are here.
    """
    if memory is None:
        device = jax.local_devices()[0]
        stats = device.memory_stats() if device.platform != "cpu" else None
        if not stats or "bytes_limit" not in stats:
            return CPU_SLOTS if device.platform == "cpu" else MOST_SLOTS
        memory = stats["bytes_limit"]
    cache = jax.eval_shape(lambda: policy.init_suffix(1, 1, max_tokens))
    each = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(cache))
    if not each:  # it looks back at nothing
        return MOST_SLOTS
    each /= local_work.num_head_parts(cache[0][0].shape[2])
    fitting = int(SLOT_SHARE * memory / each)
    # Powers of two: programs are compiled for few numbers.
    return min(MOST_SLOTS, 1 << max(0, fitting.bit_length() - 1))


def make_sampler(task, policy, num_samples, temperature=1.0):
    """Compiled: sampler(params, key, tokens [B Tp], prompt_len [B]) -> Rollouts."""
    compiled = compiled_sampler(task, policy, num_samples, temperature)

    def sampler(params, key, tokens, prompt_len):
        return compiled(params, key, within_bucket(tokens, prompt_len), prompt_len)

    return sampler


def compiled_sampler(task, policy, num_samples, temperature=1.0, memory=None):
    """The program of `make_sampler`. memory: see `decode_slots`."""

    @jax.jit
    def compiled(*arguments):
        return by_rows(
            decoding.sample,
            *arguments,
            policy=policy,
            memory=memory,
            num_samples=num_samples,
            max_tokens=task.max_response_len,
            rule=task.tokenizer.step_rule,
            max_steps=task.max_steps,
            sampling=decoding.Sampling(temperature=temperature),
            max_len=task.max_prompt_len + task.max_response_len,
        )

    return compiled


def make_brancher(task, policy, temperature=1.0):
    """brancher(params, key, tokens [G T], prefix_len [G M], active [G M]) -> (traces
    [G M T], length [G M], logprobs [G M T]) on the host: see `decoding.branch`. No
    completion outgrows what a trace can hold; what is not active means nothing."""
    compiled = compiled_brancher(task, policy, temperature)

    def brancher(params, key, tokens, prefix_len, active):
        prefix_len = np.where(active, prefix_len, 1)
        tokens = within_bucket(tokens, prefix_len)
        found = compiled(params, key, tokens, prefix_len, active)
        return tuple(map(np.asarray, processes.on_host(found)))

    return brancher


def compiled_brancher(task, policy, temperature=1.0, memory=None):
    """The program of `make_brancher`. memory: see `decode_slots`."""

    @jax.jit
    def compiled(*arguments):
        return by_rows(
            decoding.branch,
            *arguments,
            policy=policy,
            memory=memory,
            max_tokens=task.max_response_len,
            rule=task.tokenizer.step_rule,
            sampling=decoding.Sampling(temperature=temperature),
            max_len=task.max_prompt_len + task.max_response_len,
        )

    return compiled


def by_rows(draw, params, key, *rows, policy, memory=None, **options):
    """`decoding.sample` or `branch`, each group of devices with its share of rows and
    slots, a queue of its own, and parameters laid out for decoding. What is drawn does
    not depend on the number of devices."""
    num_rows = len(rows[0])
    num_slots = decode_slots(policy, options["max_tokens"], memory)
    if memory is None and jax.default_backend() == "cpu":  # cores share a processor
        num_slots //= local_work.num_row_parts(num_rows)
    if cache := jax.tree.leaves(jax.eval_shape(lambda: policy.init_suffix(1, 1, 1))):
        params = sharding.for_decoding(params, cache[0].dtype)  # it computes in that

    def run(replicated, rows):
        row_ids, *rows = rows
        return draw(
            *(*replicated, *rows),
            policy=policy,
            row_ids=row_ids,
            num_slots=max(1, num_slots),
            **options,
        )

    return local_work.by_rows(run)((params, key), (jnp.arange(num_rows), *rows))


def within_bucket(tokens, length):
    """tokens [B T] without the columns that no prefix of `length` [B ...] needs, as far
    as there are buckets for that: few widths, for each is a program of its own."""
    if isinstance(length, np.ndarray):
        return tokens[:, : decoding.bucket_of(length.max(), tokens.shape[1])]
    return tokens  # lengths that only the devices know


def complete(task, draw, problems, tokens, prefix_len, is_open, num_samples):
    """Draw and grade n completions of every open prefix of a trace of each of G
    problems: -> tokens [G S n T'], length [G S n], logprobs [G S n T'], reward [G S n].

    draw(tokens [G T], prefix_len [G M], active [G M]): what `make_brancher` makes, of
    given parameters and key. prefix_len, is_open [G S], the bare prompt first; what is
    drawn of a prefix that is not open means nothing.
    """
    # Every completion of every prefix is one branch: M = S * n.
    traces = draw(
        tokens,
        np.repeat(prefix_len, num_samples, axis=1),
        np.repeat(is_open, num_samples, axis=1),
    )
    reward, _ = grade_traces(task, problems, traces[0], prefix_len[:, :1], traces[1])
    shape = (*is_open.shape, num_samples)
    return tuple(x.reshape(*shape, *x.shape[2:]) for x in (*traces, reward))


def graded_samples(task, params, sampler, problem_set, key, *, batch_size):
    """Draw and grade samples of every problem, batch by batch: yields (rows, number of
    real ones among them, Rollouts [B N ...] with reward, responses). While the host
    grades a batch, the devices draw the next."""
    batch_size = min(batch_size, len(problem_set.ids))
    waiting = collections.deque()
    for index, real in batches(len(problem_set.ids), batch_size):
        rows = problem_set.rows(index)
        batch_key = jax.random.fold_in(key, index[0])
        drawn = sampler(params, batch_key, rows.tokens, rows.prompt_len)
        waiting.append((rows, real, drawn))
        if len(waiting) > 1:
            yield _graded(task, *waiting.popleft())
    yield from (_graded(task, *each) for each in waiting)


def _graded(task, rows, real, drawn):
    return rows, real, *grade(task, rows.problems, processes.on_host(drawn))


def accuracy_of(task, params, sampler, problem_set, key, *, batch_size):
    """Sampled accuracy: [B N] rewards of every problem."""
    found = graded_samples(
        task, params, sampler, problem_set, key, batch_size=batch_size
    )
    return np.concatenate([rollouts.reward[:real] for _, real, rollouts, _ in found])


def grade(task, problems, rollouts):
    """Grade [B N] rollouts on the host: -> (Rollouts with reward, responses)."""
    reward, responses = grade_traces(
        *(task, problems, rollouts.tokens, rollouts.prompt_len, rollouts.length)
    )
    return rollouts.replace(reward=reward), responses


def grade_traces(task, problems, tokens, prompt_len, length):
    """Grade N traces of each of B problems: -> (reward [B N], responses).

    tokens [B N T], prompt_len [B N] or [B 1], length [B N]; the responses are a list of
    B * N str, problem by problem. Each of several processes grades a share of them.
    """
    tokens, length = np.asarray(tokens), np.asarray(length)

    def graded(problems, *traces):
        responses = encoding.decode_responses(task, *traces)
        rewards = encoding.grade_batch(task, problems, responses)
        return list(zip(rewards.tolist(), responses, strict=True))

    found = processes.divided(
        graded,
        [problem for problem in problems for _ in range(length.shape[1])],
        tokens.reshape(-1, tokens.shape[-1]),
        np.broadcast_to(prompt_len, length.shape).ravel(),
        length.ravel(),
    )
    rewards, responses = zip(*found, strict=True)
    return np.array(rewards, np.float32).reshape(length.shape), list(responses)


def flatten(rollouts: Rollouts):
    """[B N ...] -> [B * N ...], on the host."""
    return jax.tree.map(
        lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), processes.on_host(rollouts)
    )


def batches(count, size):
    """Index arrays that cover 0 .. count - 1 in order; the last is filled up with
    repetitions of its last entry, so that every batch has the same shape. Yields
    (index [size], number of real entries)."""
    for start in range(0, count, size):
        index = np.arange(start, start + size)
        yield np.minimum(index, count - 1), min(size, count - start)
