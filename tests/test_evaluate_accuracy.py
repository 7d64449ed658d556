"""Accuracy against the number of samples, against brute force over subsets."""

import itertools

import numpy as np
import pytest

from pavjax import evaluate


def rng(seed=0):
    return np.random.default_rng(seed)


def test_pass_at_k_curve_averages_over_all_subsets_of_each_problem():
    outcomes = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 1]])
    ks = [1, 2, 4]
    expected = [
        [np.mean([max(s) for s in itertools.combinations(row, k)]) for k in ks]
        for row in outcomes
    ]
    curve = evaluate.pass_at_k_curve(outcomes.sum(1), np.full(3, 4), ks)
    np.testing.assert_allclose(curve, expected, atol=1e-12)


def best_of_n_by_brute_force(scores, outcomes, n):
    chosen = []
    for subset in itertools.combinations(range(len(scores)), n):
        top = max(scores[i] for i in subset)
        chosen.append(np.mean([outcomes[i] for i in subset if scores[i] == top]))
    return np.mean(chosen)


@pytest.mark.parametrize("levels", [1, 2, 4, 1000], ids=lambda n: f"{n}_levels")
def test_exact_best_of_n_is_the_mean_over_all_subsets_ties_included(levels):
    scores = rng().integers(levels, size=(5, 7)) / levels
    outcomes = rng(1).random((5, 7)) < 0.4
    ns = [1, 2, 3, 6, 7]
    expected = [
        [best_of_n_by_brute_force(s, o, n) for n in ns]
        for s, o in zip(scores, outcomes, strict=True)
    ]
    curve = evaluate.best_of_n_curve(scores, outcomes, ns)
    np.testing.assert_allclose(curve, expected, atol=1e-12)


def test_best_of_n_with_a_perfect_score_is_pass_at_n():
    outcomes = rng().random((20, 16)) < 0.2
    ns = [1, 4, 16]
    np.testing.assert_allclose(
        evaluate.best_of_n_curve(outcomes, outcomes, ns),
        evaluate.pass_at_k_curve(outcomes.sum(1), np.full(20, 16), ks=ns),
        atol=1e-12,
    )


def test_best_of_n_with_a_blind_score_is_the_mean_accuracy():
    outcomes = rng().random((20, 16)) < 0.2
    curve = evaluate.best_of_n_curve(np.zeros((20, 16)), outcomes, [1, 5, 16])
    np.testing.assert_allclose(curve, np.tile(outcomes.mean(1), (3, 1)).T)


def test_the_value_claimed_for_the_chosen_sample_is_the_expected_maximum():
    scores = np.array([[0.1, 0.4, 0.7]])
    claimed = evaluate.best_of_n_curve(scores, scores, [1, 2, 3])
    np.testing.assert_allclose(claimed, [[0.4, (0.4 + 0.7 + 0.7) / 3, 0.7]])


def test_budgets_beyond_the_samples_are_refused_with_both_numbers():
    with pytest.raises(ValueError, match=r"8.*between 1 and the 4 samples"):
        evaluate.best_of_n_curve(np.zeros((2, 4)), np.zeros((2, 4)), [1, 8])
    with pytest.raises(ValueError, match="4 samples"):
        evaluate.vote_curve(np.zeros((2, 4), int), np.zeros((2, 4)), [0])


def test_a_majority_vote_takes_the_most_frequent_answer_and_splits_ties():
    answers = np.array([[0, 1, 1, 2], [0, 0, 1, 1], [-1, -1, -1, 0], [-1] * 4])
    correct = np.array([[0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1], [0] * 4])
    curve = evaluate.vote_curve(answers, correct, [4])
    np.testing.assert_allclose(curve[:, 0], [1, 0.5, 1, 0])


def test_a_weighted_vote_adds_up_weights_and_equal_weights_are_a_majority():
    answers, correct = np.array([[0, 1, 1]]), np.array([[1, 0, 0]])
    vote = lambda weights: evaluate.vote_curve(answers, correct, [3], weights)[0, 0]
    assert vote([[0.9, 0.2, 0.3]]) == 1
    assert vote([[0.3, 0.2, 0.3]]) == 0
    assert vote([[0.6, 0.3, 0.3]]) == 0.5
    assert vote(None) == vote([[0.1, 0.1, 0.1]]) == 0


def test_a_vote_of_one_is_the_mean_accuracy():
    answers = rng().integers(3, size=(6, 8))
    curve = evaluate.vote_curve(answers, answers == 0, [1])
    np.testing.assert_allclose(curve[:, 0], (answers == 0).mean(1))


def test_votes_of_blocks_are_an_unbiased_estimate_of_votes_of_subsets():
    # over all orders of five samples, blocks of two average to all pairs
    answers = np.array([0, 0, 1, 2, -1])
    orders = np.array(list(itertools.permutations(answers)))
    pairs = np.array(list(itertools.combinations(answers, 2)))
    blocks = evaluate.vote_curve(orders, orders == 0, [2]).mean()
    np.testing.assert_allclose(
        blocks, evaluate.vote_curve(pairs, pairs == 0, [2]).mean()
    )


def test_answers_are_numbered_per_problem_and_missing_ones_do_not_vote():
    ids = evaluate.answer_ids([["12", None, "7", "12"], ["", "5", "5", "6"]])
    np.testing.assert_array_equal(ids, [[0, -1, 1, 0], [-1, 0, 0, 1]])
