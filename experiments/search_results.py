"""From per-problem arrays of the search stage to curves with intervals."""

import numpy as np

from experiments.search_methods import PLAIN, effective_scores
from pavjax import evaluate
from pavjax.tasks import encoding

NOT_REACHED = "never reached"
PICK_FIELDS = ("width", "accuracy", "tokens", "flops")


def summarize(
    searcher, *, problems, pools, beams, rules, alpha_curve, section, provers, default
):
    """results.json of the search stage."""
    pool = pools["test"]
    samples = best_of_n(searcher, pool, section)
    curves = {
        label: beam_curve(searcher, by_width) for label, by_width in beams.items()
    }
    per_problem = {
        "ORM": (np.array(samples["ORM"]["n"]), best_per_problem(pool, "ORM", section)),
        "PAV": correct_of(beams[default]),
        "Q": correct_of(beams["Q"]),
    }
    results = {
        "num_problems": len(problems.ids),
        "provers": provers,
        "base": provers[0],
        "candidates": section["candidates"],
        "alpha": section["alpha"],
        "alpha_curve": {
            "alpha": alpha_curve["alpha"],
            "accuracy": [interval(correct) for correct in alpha_curve["correct"]],
            "beam": alpha_curve["beam"],
            "num_problems": alpha_curve["num_problems"],
        },
        "best_of_n": samples,
        "beam": {"Q": curves["Q"], "PAV": curves[default], **curves},
        "over_orm": {
            label: over_orm(by_width, samples["ORM"]["n"], per_problem["ORM"][1])
            for label, by_width in beams.items()
        },
        "final_pick": final_picks(searcher, beams[default], curves[default]),
        "prover_sweep": [label for label in rules if label != PLAIN],
        "default_prover": default,
        "prediction_error": prediction_error(pools, rules[default]),
        "traces": traces(searcher, problems, beams[default], rules[default]),
    }
    for cost in ("tokens", "flops"):
        results[f"equal_{cost}"] = at_equal_cost(
            cost, samples["ORM"], curves[default], curves["Q"], per_problem
        )
    results["efficiency"] = {
        cost: efficiency(samples["ORM"], curves[default], cost)
        for cost in ("tokens", "flops")
    }
    results["headline"] = headline(results)
    return results


def interval(per_problem):
    """[estimate, low, high] of a mean over problems."""
    return [float(x) for x in evaluate.mean_interval(np.asarray(per_problem, float))]


def sample_counts(section):
    """The n of best-of-n: the widths, and what a beam of each width generates."""
    widths = section["widths"]
    return sorted({*widths, *(section["candidates"] * width for width in widths)})


def best_per_problem(pool, method, section):
    """[B K] expected correctness of the sample that `method` prefers among n."""
    scores = pool["orm"] if method == "ORM" else pool["values"][:, :, -1, 0]
    return evaluate.best_of_n_curve(scores, pool["reward"], sample_counts(section))


def best_of_n(searcher, pool, section):
    """Curves of the methods that choose among n whole samples."""
    ns = sample_counts(section)
    response = float(np.mean(pool["length"] - pool["prompt_len"]))
    flops = searcher.sample_flops(pool)
    correct = pool["reward"]
    scores = {"ORM": pool["orm"], "PAV-as-ORM": pool["values"][:, :, -1, 0]}
    curves, num_readers = {}, {}
    for method in scores:
        curves[method] = best_per_problem(pool, method, section)
        num_readers[method] = 1
    blocks = [n for n in ns if n <= correct.shape[1]]
    curves["majority vote"] = evaluate.vote_curve(pool["answer"], correct, blocks)
    curves["weighted vote"] = evaluate.vote_curve(
        pool["answer"], correct, blocks, weights=pool["orm"]
    )
    num_readers |= {"majority vote": 0, "weighted vote": 1, "Pass@N": 0}
    tries = np.full(len(correct), correct.shape[1])
    curves["Pass@N"] = evaluate.pass_at_k_curve(correct.sum(1).astype(int), tries, ns)
    result = {}
    for method, curve in curves.items():
        readers = num_readers[method]
        result[method] = {
            "n": ns,
            "accuracy": [interval(column) for column in curve.T],
            "tokens": [n * response for n in ns],
            "flops": [
                n * (flops.write + readers * flops.read)
                + flops.write_prompt
                + readers * flops.read_prompt
                for n in ns
            ],
        }
        if method in scores:
            claimed = evaluate.best_of_n_curve(scores[method], scores[method], ns)
            result[method]["claimed"] = claimed.mean(0).tolist()
    return result


def correct_of(by_width):
    """(widths [K], correct [B K])."""
    widths = sorted(by_width)
    return np.array(widths), np.stack([by_width[w]["correct"] for w in widths], axis=1)


def beam_curve(searcher, by_width):
    widths = sorted(by_width)
    return {
        "width": widths,
        "accuracy": [interval(by_width[w]["correct"]) for w in widths],
        "pass_at_n": [interval(by_width[w]["solved"]) for w in widths],
        "claimed": [float(by_width[w]["claimed"].mean()) for w in widths],
        "tokens": [float(by_width[w]["written"].sum(1).mean()) for w in widths],
        "flops": [searcher.beam_flops(by_width[w], w) for w in widths],
    }


def over_orm(by_width, ns, orm):
    """Relative improvement in accuracy, in %, over ORM best-of-N with as many samples
    as there are beams (paper, Fig. 5c): {"n", "percent": [[estimate, low, high]]}, paired
    by problem; None where the ORM has no success to compare with.

    orm: [B K], its expected correctness at `ns` [K].
    """
    found = {"n": [], "percent": []}
    for width in sorted(set(by_width) & set(ns)):
        baseline = orm[:, ns.index(width)]
        with np.errstate(divide="ignore", invalid="ignore"):
            percent = evaluate.bootstrap(
                lambda ours, theirs: 100 * (np.divide(ours.mean(), theirs.mean()) - 1),
                *(np.asarray(by_width[width]["correct"], float), baseline),
            )
        found["n"].append(width)
        found["percent"].append(
            [float(limit) if np.isfinite(limit) else None for limit in percent]
        )
    return found


def final_picks(searcher, by_width, curve):
    """The PAV beam, and what it would be were its final candidate picked otherwise."""
    result = {"by PAV": {name: curve[name] for name in PICK_FIELDS}}
    found = [by_width[width] for width in curve["width"]]
    for name, field in (("by ORM", "correct_by_orm"), ("by vote", "correct_by_vote")):
        more = [0.0] * len(found)
        if name == "by ORM":
            more = [searcher.orm_pick_flops(each) for each in found]
        result[name] = {
            "width": curve["width"],
            "accuracy": [interval(each[field]) for each in found],
            "tokens": curve["tokens"],
            "flops": [a + b for a, b in zip(curve["flops"], more, strict=True)],
        }
    return result


def at_equal_cost(cost, orm, pav, plain, per_problem):
    """PAV beam minus ORM best-of-N, and minus the Q^pi beam, problem by problem."""
    result = {}
    pairs = {
        "PAV-ORM": (orm, per_problem["ORM"][1]),
        "PAV-Q": (plain, per_problem["Q"][1]),
    }
    for name, (baseline, correct) in pairs.items():
        grid, difference = evaluate.accuracy_at_equal_tokens(
            np.array(pav[cost]),
            per_problem["PAV"][1],
            np.array(baseline[cost]),
            correct,
        )
        result[name] = [interval(column) for column in difference.T]
        result[f"{name} {cost}"] = grid.tolist()
    result[cost] = result[f"PAV-ORM {cost}"]
    return result


def efficiency(orm, pav, cost):
    found = evaluate.compute_efficiency(
        *(orm[cost], [a[0] for a in orm["accuracy"]]),
        *(pav[cost], [a[0] for a in pav["accuracy"]]),
    )
    return {
        name: float(value) if np.isfinite(value) and value > 0 else NOT_REACHED
        for name, value in found._asdict().items()
    }


def prediction_error(pools, rule, num_samples=4):
    """Error in predicting a trace's outcome from its score after step h (Fig. 10)."""

    def parts(pool):
        few = {name: array[:, :num_samples] for name, array in pool.items()}
        flat = {k: v.reshape(-1, *v.shape[2:]) for k, v in few.items()}
        num_steps = flat["num_steps"][:, None]
        mask = np.arange(flat["values"].shape[1] - 1) < num_steps
        return flat["reward"], mask, effective_scores(flat["values"], rule)

    reward, mask, scores = parts(pools["validation"])
    test_reward, test_mask, test_scores = parts(pools["test"])
    result = {}
    for name, fitted, score in zip(("Q", "PAV"), scores, test_scores, strict=True):
        thresholds = evaluate.fit_thresholds(fitted, reward, mask)
        error = evaluate.outcome_prediction_error_by_step(
            score, test_reward, test_mask, thresholds
        )
        result[name] = [None if np.isnan(e) else float(e) for e in error]
    result["num_traces"] = len(test_reward)
    return result


def traces(searcher, problems, by_width, rule, most=6):
    """The chosen traces of a few problems, step by step, right and wrong ones."""
    found = by_width[min(by_width)]
    correct = found["correct"] > 0
    wrong, right = np.flatnonzero(~correct), np.flatnonzero(correct)
    chosen = sorted([*wrong[: most // 2], *right[: most - len(wrong[: most // 2])]])
    if not chosen:
        return []
    task = searcher.task
    tokens, length = found["chosen_tokens"][chosen], found["chosen_length"][chosen]
    prompt_len = found["prompt_len"][chosen]
    values = searcher.trace_values(tokens, prompt_len, length)
    step_ids = encoding.step_ids(task, tokens, prompt_len, length)
    responses = encoding.decode_responses(task, tokens, prompt_len, length)
    result = []
    for row, index in enumerate(chosen):
        problem = problems.problems[index]
        steps = encoding.decode_steps(task, tokens[row], step_ids[row])
        q, effective = effective_scores(values[row], rule)
        oracle = [None] * task.max_steps
        if task.steps_correct is not None:
            oracle = map(bool, task.steps_correct(problem, responses[row]))
        advantage = (effective - q) / rule["alpha"] if rule["alpha"] else effective - q
        result.append(
            {
                "prompt": problem.prompt,
                "answer": problem.answer,
                "graded": bool(correct[index]),
                "chosen_by": "PAV",
                "steps": [
                    {
                        "text": text,
                        "Q": float(q[h]),
                        "A": float(advantage[h]),
                        "correct": correct_so_far,
                    }
                    for h, (text, correct_so_far) in enumerate(zip(steps, oracle))
                ],
            }
        )
    return result


def headline(results):
    """The numbers that a sweep's table compares."""
    best = {
        name: max(point[0] for point in curve["accuracy"])
        for name, curve in (
            ("ORM best-of-N", results["best_of_n"]["ORM"]),
            ("Q beam", results["beam"]["Q"]),
            ("PAV beam", results["beam"]["PAV"]),
        )
    }
    gains = [point[0] for point in results["equal_tokens"]["PAV-ORM"]]
    return best | {
        "PAV - ORM at equal tokens, largest": max(gains),
        "PAV - ORM at equal tokens, smallest": min(gains),
    }
