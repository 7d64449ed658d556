"""What the page of provers says, of results that are made up."""

import numpy as np
import pytest

from experiments.provers import page as provers_page
from experiments.provers import results as provers_results
from experiments.provers.results import Outcome, Results
from pavjax import evaluate

NAMES = ["base", "Bo4(base)", "strong", "base+strong"]
CONFIG = {
    "base": "base",
    "task": {"name": "countdown"},
    "complementarity": {"num_actions": 4},
    "search": {"sweep_widths": [4]},
    "report": {"confidence": 0.95},
}
TERMS = np.array([[0.1, 0.1], [0.4, 0.2], [0.3, 0.0], [0.2, 0.1]])


def results(gain=(0.0, 0.05, 0.02, 0.03), criterion="sum"):
    rng = np.random.default_rng(0)
    noise = 0.01 * rng.normal(size=(1, 2, 30))
    terms = TERMS[:, :, None] + noise - noise.mean(-1, keepdims=True)
    gains = np.array(gain)[:, None] + np.zeros((4, 50))
    outcomes = [
        Outcome("beam of 4", gains, "problems", 0.5),
        Outcome("RL, final accuracy", gains[:, :3], "seeds", 0.4),
    ]
    return Results(
        *(NAMES, terms, terms[0, 0], outcomes, criterion, "Bo4(base)", 0.95, CONFIG)
    )


def test_the_predictions_are_the_terms_and_their_sum():
    found = results()
    for name, expected in zip(
        provers_results.PREDICTIONS, [*TERMS.T, TERMS.sum(1)], strict=True
    ):
        np.testing.assert_allclose(found.prediction(name).mean(1), expected, atol=1e-9)
        assert (np.diff(found.intervals(name)[:, [1, 0, 2]]) >= 0).all()


def test_everything_is_drawn_and_the_sentences_give_correlation_and_choice():
    report, sentences = provers_page.build(results())
    assert not report.flaws
    images = [name for name in report.files if name.endswith(".png")]
    assert len(images) == 4
    assert all(report.files[name].startswith(b"\x89PNG") for name in images)
    # predicted order by the sum: base, strong = base+strong, Bo4; realised: 0 5 2 3
    rho = evaluate.rank_correlation(TERMS.sum(1)[:, None], np.array([[0, 5, 2, 3]]).T)
    assert f"sum {rho.estimate:+.2f}" in sentences[1]
    assert "Bo4(base), gains +5.0, the average prover +2.5" in sentences[1]


def test_equal_gains_are_said_to_rank_nothing():
    report, sentences = provers_page.build(results(gain=(0.1,) * 4))
    assert not report.flaws
    assert sentences[1] == "beam of 4: all provers gain the same."
    assert "all gains tie" in report.files["index.html"].decode()


@pytest.mark.parametrize(
    "criterion, chosen", [("alignment", "Bo4(base)"), ("sum", "Bo4(base)")]
)
def test_the_table_of_choices_shows_what_a_criterion_would_have_gained(
    criterion, chosen
):
    rows = {row[0]: row[1:] for row in provers_page.table_of_choices(results()).rows}
    assert rows[criterion][0] == chosen
    np.testing.assert_allclose(rows[criterion][1:], 0.05)
    np.testing.assert_allclose(rows["(the average)"][1:], 0.025)


def test_gains_in_search_are_paired_by_problem_and_those_of_rl_by_seed(tmp_path):
    units = tmp_path / "units"
    units.mkdir()
    correct = {"Q": [1, 0, 0, 1], "base": [1, 0, 1, 1], "strong": [0, 0, 0, 1]}
    for label, values in correct.items():
        np.savez(units / f"beam.{label}.4.npz", correct=np.array(values))
    (found,) = provers_results.of_search(["base", "strong"], CONFIG, tmp_path, {})
    np.testing.assert_array_equal(found.gain, [[0, 0, 1, 0], [-1, 0, 0, 0]])
    runs = {
        f"rl.{method}.seed{seed}": (
            None,
            {"method": method, "seed": seed, "test_accuracy": accuracy},
        )
        for method, seed, accuracy in [
            ("orm", 0, [0.1, 0.2]),
            ("orm", 1, [0.2, 0.4]),
            ("base", 1, [0.2, 0.6]),
            ("base", 0, [0.1, 0.1]),
        ]
    }
    average, final = provers_results.of_rl(["base"], runs)
    np.testing.assert_allclose(average.gain, [[-0.05, 0.1]])
    np.testing.assert_allclose(final.gain, [[-0.1, 0.2]])
    np.testing.assert_allclose(final.without, 0.3)
