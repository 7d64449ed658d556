"""Process advantage verifiers: a step is worth the progress that a prover sees in it.

    prefix values V^mu  ->  process advantages A^mu  ->  effective reward (search)
                                                     ->  step credits (RL)

Setlur et al. 2024, "Rewarding Progress", arXiv:2410.08146, Sections 2 and 3.
"""

import jax
import jax.numpy as jnp

from pavjax import arrays


def prefix_values(logits, step_ids, prompt_len, *, num_prefixes):
    """How likely each prover is to succeed from each prefix of a trace.

        V^mu(s_h) = sigmoid(logit at the last token of prefix h),   h = 0 .. S-1

    logits [*B T P], step_ids [*B T], prompt_len [*B] -> [*B S P] float32. Prefix 0 is
    the bare prompt. Prefixes past the last step repeat the value of the whole trace.
    """
    ends = arrays.prefix_ends(step_ids, prompt_len, num_prefixes=num_prefixes)
    picked = jnp.take_along_axis(logits, ends[..., None], axis=-2)
    return jax.nn.sigmoid(picked.astype(jnp.float32))


def step_values(values, num_steps):
    """Value of each step: Q^mu(s_h, a_h) = V^mu(s_{h+1}), since stepping is
    deterministic.

    values [*B S P], num_steps [*B] -> [*B H P]; 0 past the last step.
    Column of the base policy: Q^pi, the first term of the effective reward. Put in the
    place of the advantages in `step_credits`, Q^mu rewards staying in a good state
    without progress: the paper's cautionary run (Section 3.2, Appendix G).
    """
    return _where_step_exists(values[..., 1:, :], num_steps)


def process_advantages(values, num_steps):
    """Progress made by each step, measured by a prover.

        A^mu(s_h, a_h) = V^mu(s_{h+1}) - V^mu(s_h),   h = 0 .. H-1

    values [*B S P], num_steps [*B] -> [*B H P]. Steps past `num_steps` get 0. The first
    step is measured against the value of the bare prompt. The sum over a trace
    telescopes to V^mu(whole trace) - V^mu(prompt).  Eq. 2.
    """
    return _where_step_exists(values[..., 1:, :] - values[..., :-1, :], num_steps)


def effective_reward(q_base, advantages, *, alpha):
    """What the search ranks: Q^pi(s_h, a_h) + alpha A^mu(s_h, a_h).

    q_base, advantages: any one shape. alpha = 0 ranks by value alone.
    Section 3.2, and Eq. 5 for the same quantity inside the policy gradient.
    """
    return q_base + alpha * advantages


def step_credits(reward, advantages, *, alpha):
    """What multiplies grad log pi(a_h | s_h): the outcome plus the step's own progress.

        credit_h = reward + alpha A^mu(s_h, a_h),   h = 0 .. H-1

    reward [*B], advantages [*B H] -> [*B H]. The outcome is a return and weights every
    step (it estimates Q^pi); the advantage weights step h alone. It is NOT summed to
    go: the sum telescopes to reward - V^mu(s_h), which is outcome RL with a baseline
    whatever the prover, and the effect of the prover is lost.  Eqs. 4 and 5, where the
    distribution of states is held fixed.
    """
    return effective_reward(reward[..., None], advantages, alpha=alpha)


def _where_step_exists(per_step, num_steps):
    step = arrays.last_axis_index(per_step.shape[-2], per_step.ndim - 1)
    exists = step < num_steps[..., None]
    return jnp.where(exists[..., None], per_step, 0)
