"""The report shows the numbers that it was given, and says what is missing."""

import csv
import json
import re

import numpy as np
import pytest
import synthetic_results as synthetic

from experiments import cli, search_results
from experiments.pipeline import plan
from experiments.reporting import (
    comparison,
    cost_tables,
    efficiency,
    goals,
    page,
    parts,
    placing,
    prover_map,
    search_charts,
    search_tables,
    summary,
    tables,
    traces,
    training_tables,
)
from experiments.reporting.results import load
from pavjax import evaluate

TABLES = (
    *search_tables.PARTS,
    *training_tables.VERIFIER_PARTS,
    *training_tables.RL_PARTS,
    *cost_tables.PARTS,
)
FIGURES = [part for section in page.SECTIONS for part in section[3]]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The directory of a report about complete results."""
    return synthetic.make_report(tmp_path_factory.mktemp("report"))


def loaded(tmp_path, change=lambda name, results: results, **overrides):
    """The `Results` of made-up results, without drawing anything."""
    job = synthetic.write(tmp_path, change, **overrides)
    return load(job, {n: up.directory(tmp_path) for n, up in job.inputs.items()})


def changed(name, **fields):
    """A `change` that sets fields of one job's results."""
    return lambda job, results: results | fields if job == name else results


def drawn(results, *names):
    """Some figures alone -> (Report, their HTML)."""
    report = parts.Report()
    wanted = [part for part in FIGURES if part.name in names]
    made = [parts.figure_html(report, part, results, []) for part in wanted]
    return report, "".join(made)


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def goal(results, letter):
    return next(each for each in goals.judge(results) if each.letter == letter)


# ---------------------------------------------------------------- the page


def test_every_section_figure_and_table_is_there(report):
    text = (report / "index.html").read_text()
    sections = ["summary", "goals", "traces", "config", *(s[0] for s in page.SECTIONS)]
    for name in [*sections, *(part.name for part in (*FIGURES, *TABLES))]:
        assert f'id="{name}"' in text, name
    assert 'class="missing"' not in text
    assert "could not be made" not in text
    for part in FIGURES:
        assert (report / f"figures/{part.name}.png").read_bytes()[:4] == b"\x89PNG"
    for part in TABLES:
        assert read_csv(report / f"tables/{part.name.removeprefix('table_')}.csv")


def test_the_page_needs_nothing_outside_itself(report):
    text = (report / "index.html").read_text()
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:|#)\w""", text)
    assert text.count('src="data:image/png;base64,') == len(FIGURES)
    assert "<script" not in text
    assert "@import" not in text


def test_the_full_config_is_shown(report):
    text = (report / "index.html").read_text()
    config = json.loads((report / "config.json").read_text())
    assert "rl.kl_weight = 0.01\n" in text
    for name, _ in page.flat(config):
        assert f"{name} = " in text


def test_results_hold_the_index_and_a_finite_summary(report):
    results = json.loads((report / "results.json").read_text())
    assert (report / results["index"]).exists()
    assert all(len(row) == 3 for row in results["summary"])
    assert "PAV beam of 64" in summary.as_text(results["summary"])
    # wall times would make the results of two equal runs differ
    assert [each["letter"] for each in results["goals"]] == list("abcd")


# ---------------------------------------------------------------- the numbers


def test_drawn_numbers_are_the_given_ones(report):
    rows = read_csv(report / "figures.csv")
    drawn = [
        [float(row[column]) for column in ("x", "y", "low", "high")]
        for row in rows
        if row["figure"] == "fig4_by_n" and row["series"] == "PAV beam"
    ]
    given = synthetic.search()["beam"]["PAV"]
    expected = [[n, *a] for n, a in zip(given["width"], given["accuracy"], strict=True)]
    np.testing.assert_allclose(drawn, expected)


def test_tabulated_numbers_are_the_given_ones(report):
    rows = {row["N"]: row for row in read_csv(report / "tables/search_accuracy.csv")}
    orm = synthetic.search()["best_of_n"]["ORM"]
    for n, interval in zip(orm["n"], orm["accuracy"], strict=True):
        found = [float(rows[str(n)][f"ORM{end}"]) for end in ("", " low", " high")]
        np.testing.assert_allclose(found, interval)
    assert rows["3"]["PAV beam"] == ""  # no beam of that width


def test_a_cell_is_shown_with_its_interval():
    assert tables.show([0.4213, 0.38, 0.46], "percent") == "42.1 [38.0, 46.0]"
    assert tables.show([0.05, None, None], "points") == "+5.0"
    assert tables.show([-0.013, -0.02, 0.01], "points") == "−1.3 [−2.0, +1.0]"
    assert tables.show(None, "percent") == "–"
    assert tables.show(12_345, "short") == "12.3k"


def test_intervals_over_seeds_are_students(tmp_path):
    results = loaded(tmp_path)
    final = [synthetic.rl("pav", s)["final"]["accuracy"][0] for s in (0, 1, 2)]
    expected = evaluate.student_interval(np.array(final))
    np.testing.assert_allclose(results.runs_of("pav").final(), expected)


def test_sample_efficiency_is_that_of_the_mean_curves(tmp_path):
    results = loaded(tmp_path)
    curves = [
        np.mean([synthetic.rl(name, s)["test_accuracy"] for s in (0, 1, 2)], axis=0)
        for name in ("orm", "pav")
    ]
    x = np.arange(0, 101, 10)
    expected = evaluate.sample_efficiency(x, curves[0], x, curves[1])
    mean, per_seed = efficiency.sample_efficiency(results)
    assert mean.value == pytest.approx(expected)
    assert len(per_seed) == 3


def test_costs_are_summed_over_the_jobs_of_a_stage(tmp_path):
    results = loaded(tmp_path)
    table = cost_tables.cost_by_stage(results)
    rows = {row[0]: row[1:] for row in table.rows}
    of_rl = [results.costs[n] for n, s in results.stages.items() if s == "rl"]
    assert rows["rl"][0] == len(of_rl) == 12  # 4 methods, 3 seeds
    assert rows["rl"][1] == sum(record["seconds"] for record in of_rl)
    assert rows["all"][3] == sum(r["tokens_generated"] for r in results.costs.values())


def test_the_phases_of_an_iteration_are_the_medians_of_what_was_logged(tmp_path):
    results = loaded(tmp_path)
    lines = results.rl_metrics["rl.pav.seed1"]
    # an iteration in which something was compiled; one that was not timed
    lines += [{"step": 30, "seconds_sample": 9.0}, {"step": 40}]
    rows = {row[0]: row[1:] for row in training_tables.phases(results).rows}
    assert rows["rl.pav.seed1"] == [0.9375, 0.25, 0.125, 0.0625, 0.5, 4.0]
    assert len(rows) == 12


def test_methods_keep_their_colour_in_all_figures(tmp_path):
    results = loaded(tmp_path)
    charts = [part.make(results) for part in search_charts.PARTS if "fig4" in part.name]
    for label in ("PAV beam", "ORM best-of-N", "Pass@N"):
        found = {s.colour for c in charts for s in c.series if s.label == label}
        assert len(found) == 1, label


# ---------------------------------------------------------------- goals


def test_goals_are_judged_by_the_numbers(tmp_path):
    results = loaded(tmp_path)
    # gain +14 and never worse, but only 4.2 times cheaper than ORM's best
    assert goal(results, "a").status == "partly met"
    assert "+14.0 [+11.5, +16.5] points" in goal(results, "a").words
    assert goal(results, "b").status == "met within noise"
    assert goal(results, "c").status == "met"
    assert goal(results, "d").status == "met"
    assert goal(results, "e").status == "measured"


def test_a_broken_order_is_named(tmp_path):
    search = synthetic.search()
    search["beam"]["Q"]["accuracy"] = [[0.1, 0.08, 0.12]] * len(synthetic.WIDTHS)
    results = loaded(tmp_path, changed("search", beam=search["beam"]))
    assert goal(results, "b").status == "partly met"
    assert "Q beam < PAV-as-ORM" in goal(results, "b").words


def test_a_gain_that_is_not_there_is_a_goal_missed(tmp_path):
    worse = {"tokens": [100.0, 200.0], "PAV-ORM": [[-0.05, -0.08, -0.02]] * 2}
    ratios = {axis: {"at_largest_budget": 0.7} for axis in ("tokens", "flops")}
    change = changed("search", equal_tokens=worse, efficiency=ratios)
    found = goal(loaded(tmp_path, change), "a")
    assert found.status == "missed"
    assert "which is worse" in found.words


def test_equal_runs_do_not_meet_the_rl_goal(tmp_path):
    def change(name, results):
        if name.startswith(("rl.pav.", "rl.orm.")):
            method, seed = results["method"], results["seed"]
            return synthetic.rl("orm", seed) | {"method": method}
        return results

    found = goal(loaded(tmp_path, change), "d")
    assert found.status == "missed"
    assert "+0.0" in found.words


# ---------------------------------------------------------------- what is missing


def test_one_seed_has_no_interval_over_seeds(tmp_path):
    results = loaded(tmp_path, **{"rl.seeds": (0,)})
    rows = {name: note for name, _, note in summary.summary_table(results)}
    assert "one seed, no interval over seeds" in rows["PAV-RL, final accuracy"]
    assert "500 problems" in rows["PAV-RL, final accuracy"]
    curve, _, accuracy = results.runs_of("pav").accuracy()
    expected = evaluate.wilson(accuracy[0] * 500, 500)
    np.testing.assert_allclose(curve.low, expected.low)


def test_without_rl_the_rest_is_shown(tmp_path):
    directory = synthetic.make_report(tmp_path, **{"rl.methods": ()})
    text = (directory / "index.html").read_text()
    assert "no results of the stage rl" in text
    assert "could not be made" not in text
    assert (directory / "figures/fig5a.png").exists()
    assert not (directory / "figures/fig7_final.png").exists()
    results = json.loads((directory / "results.json").read_text())
    assert results["goals"][3]["status"] == "not judged"


def test_empty_search_results_cost_no_more_than_their_parts(tmp_path):
    def change(name, results):
        return {} if name == "search" else results

    results = loaded(tmp_path, change)
    report = page.build(results, "x")
    text = report.files["index.html"].decode()
    assert "figures/fig7_final.png" in report.files
    assert "figures/fig5a.png" not in report.files
    assert 'class="missing" id="fig5a"' in text
    assert goal(results, "a").status == "not judged"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("never reached", "never reached"),
        (None, "gives no number"),
        (0.0, "never reaches"),
        ("inf", "starts at"),
        (float("nan"), "gives no number"),
    ],
)
def test_an_efficiency_that_is_no_number_says_why(tmp_path, value, words):
    ratio = {"at_largest_budget": value, "at_plateau": 2.0}
    both = {"tokens": ratio, "flops": ratio}
    results = loaded(tmp_path, changed("search", efficiency=both))
    text = json.dumps(search_tables.efficiency(results).rows, ensure_ascii=False)
    assert words in text.replace("give no number", "gives no number")
    assert goal(results, "a").status == ("partly met")
    rows = {name: note for name, _, note in summary.summary_table(results)}
    note = rows["compute efficiency, matched to ORM at its largest N"]
    assert words in note.replace("give no number", "gives no number")


@pytest.mark.parametrize("auc", [0.61, None])
def test_a_failed_gate_is_said_at_the_top(tmp_path, auc):
    gate = {"passed": False, "auc": auc, "threshold": 0.8}

    def change(name, results):
        return results | {"gate": gate} if name.startswith("rl.") else results

    results = loaded(tmp_path, change)
    (sentence,) = page.gate_words(results)
    assert "FAILED" in sentence
    assert "PAV-RL" in sentence
    assert "ORM-RL" not in sentence  # it does not use the verifier
    assert "FAILED" in goal(results, "d").words


def test_nothing_unsolved_is_a_sentence(tmp_path):
    def change(name, results):
        if name.startswith("rl."):
            empty = {"num_problems": 0, "sft_samples": 256, "RL": [], "n": []}
            results["final"]["unsolved"] = empty
        return results

    report, text = drawn(loaded(tmp_path, change), "fig8_unsolved")
    assert "leaves no test problem unsolved" in text
    assert not report.flaws


def test_a_sweep_at_one_width_is_shown_by_prover_only(tmp_path):
    search = synthetic.search()
    for label in search["prover_sweep"]:
        if label != search["default_prover"]:
            entry = search["beam"][label]
            search["beam"][label] = {k: v[2:3] for k, v in entry.items()}
    results = loaded(tmp_path, changed("search", **search))
    report, text = drawn(results, "fig5b_by_prover", "fig5b_by_width")
    assert list(report.files) == ["figures/fig5b_by_prover.png"]
    assert "one beam width only, N = 4" in text
    assert not report.flaws
    assert goal(results, "c").status == "met within noise"  # 64% against 57% at N = 4


# ---------------------------------------------------------------- details


def test_text_of_traces_is_escaped_and_advantages_are_coloured(tmp_path):
    step = {"text": "<b>1</b>", "Q": 0.5, "A": -0.2, "correct": False}
    trace = {"prompt": "a<b", "answer": "1", "graded": False, "chosen_by": "PAV"}
    trace["steps"] = [step, step | {"A": 0.2}, step | {"A": None, "Q": None}]
    text = traces.to_html(loaded(tmp_path, changed("search", traces=[trace])))
    assert "<b>1" not in text
    assert "a&lt;b" in text
    assert "A = −0.2000" in text
    assert traces.colour(0.0, 1.0) == "#ffffff"
    red, green = (traces.colour(a, 1.0) for a in (-1.0, 1.0))
    assert int(red[1:3], 16) > int(red[3:5], 16)
    assert int(green[3:5], 16) > int(green[1:3], 16)


def test_labels_at_the_ends_of_lines_do_not_overlap():
    heights = np.array([0.99, 0.98, 0.5, 0.97, 0.51, 0.02])
    spread = placing.spread_out(heights, 0.05)
    assert np.diff(np.sort(spread)).min() > 0.05 - 1e-9
    assert spread.max() <= 1
    np.testing.assert_array_equal(np.argsort(spread), np.argsort(heights))


# ---------------------------------------------------------------- sweeps


def sweep_points(tmp_path, pairs, **overrides):
    """Points over base and provers, of which `pairs` are complete."""
    points = []
    for base in ("base", "strong"):
        for prover in ("base", "strong"):
            config = cli.load_config(synthetic.ROOT / "configs/arithmetic.py:tiny")
            for path, value in {
                "base": base,
                "provers": (prover,),
                **overrides,
            }.items():
                cli.override(config, path, value)
            job = next(job for job in plan(config) if job.stage == "search")
            if (base, prover) in pairs:
                directory = job.directory(tmp_path)
                directory.mkdir(parents=True)
                results = synthetic.search() | {"base": base}
                (directory / "results.json").write_text(json.dumps(results))
                (directory / "DONE.json").write_text(json.dumps(synthetic.done_of(0)))
            points.append(({"base": base, "provers": (prover,)}, [job]))
    return points


def test_a_sweep_over_pairs_has_a_heat_map_with_its_gaps(tmp_path):
    points = sweep_points(tmp_path, {("base", "base"), ("base", "strong")})
    text = comparison.compare(points, tmp_path, "provers")
    assert "2 of 4 pairs are missing: hatched" in text
    assert "A base as its own prover is Bo4(pi)" in text
    rows = read_csv(tmp_path / "sweeps/provers.csv")
    assert [row["state"] for row in rows] == ["", "", "missing", "missing"]
    assert (tmp_path / "sweeps/provers.png").read_bytes()[:4] == b"\x89PNG"
    assert "data:image/png" in (tmp_path / "sweeps/provers.html").read_text()


def test_a_cell_is_of_the_prover_that_its_point_asks_for():
    """A policy by its own label, the base itself by the default prover; N is 16, or the
    largest there is."""
    search = synthetic.search()
    search["over_orm"]["strong"]["percent"][-1] = [None, None, None]
    for n, percent in ((16, 36.0), (64, 84.0)):
        search["over_orm"]["Bo4(base)"]["percent"][synthetic.WIDTHS.index(n)][0] = (
            percent
        )
    found = prover_map.improvement(search, {"base": "base", "provers": ("base",)})
    assert found == ([36.0, 11.0, 60.0], 16)
    found = prover_map.improvement(search, {"base": "base", "prover": "Bo4(pi)"})
    assert found == ([36.0, 11.0, 60.0], 16)
    wanted = {"base": "base", "provers": ("base", "strong")}
    search["over_orm"]["strong"] = {"n": [4, 8], "percent": [[1, 0, 2], [3, 2, 4]]}
    assert prover_map.improvement(search, wanted) == ([3, 2, 4], 8)
    unknown = {"base": "base", "provers": ("unknown",)}
    assert prover_map.improvement(search, unknown) is None


def test_improvement_is_paired_and_relative():
    """Ours is right where theirs is, and on as many problems again: +100 % whatever
    problems are drawn, and no interval around it. Without a success of the ORM there
    is nothing to be better than."""
    orm = np.array([[1.0, 0.5], [0.0, 0.5], [0.0, 0.5], [0.0, 0.5]])
    by_width = {2: {"correct": np.ones(4)}, 7: {"correct": np.ones(4)}}
    found = search_results.over_orm(by_width, [1, 2], orm)
    assert found == {"n": [2], "percent": [[100.0, 100.0, 100.0]]}
    found = search_results.over_orm({1: by_width[2]}, [1], 0 * orm[:, :1])
    assert found == {"n": [1], "percent": [[None, None, None]]}


def test_a_sweep_over_one_number_has_a_curve(tmp_path):
    points = []
    for alpha in (0.0, 3.0):
        synthetic.write(tmp_path, **{"rl.alpha": alpha, "rl.methods": ("pav",)})
        config = cli.load_config(synthetic.ROOT / "configs/arithmetic.py:tiny")
        config.rl.update(alpha=alpha, methods=("pav",), seeds=(0, 1, 2))
        jobs = [job for job in plan(config) if job.stage == "rl"]
        points.append(({"rl.alpha": alpha, "rl.methods": ("pav",)}, jobs))
    text = comparison.compare(points, tmp_path, "alpha")
    assert "Bands: 95% intervals" in text
    rows = read_csv(tmp_path / "sweeps/alpha.csv")
    assert [row["seeds"] for row in rows] == ["3", "3"]
    assert (tmp_path / "sweeps/alpha.png").exists()
