"""Each exchange format on small samples of its own: what it carries comes back, and
the traps that its users fell into."""

import pytest

from pavjax.data import formats
from pavjax.data.formats import (
    Counts,
    FormatError,
    LabelledSolution,
    LabelRules,
    Rating,
    TraceTokens,
    Where,
)
from pavjax.data.formats.streaming import Row

QUESTION = "Ann has 2 pens and buys 2. How many?"
STEPS = ("Step 1: 2 + 2 = 4.", "Step 2: The answer is: 4")
HARD = LabelledSolution(QUESTION, STEPS, (True, False))
SOFT = LabelledSolution(QUESTION, STEPS, (0.9, 0.125))


def read(name, *rows):
    """Rows given as dicts -> solutions."""
    place = (Where("sample.jsonl", i) for i in range(1, len(rows) + 1))
    return list(formats.FORMATS[name].read(map(Row, rows, place)))


def write(name, *solutions, **rules):
    return list(formats.convert(solutions, name, LabelRules(**rules)))


def round_trip(name, *solutions, **rules):
    return read(name, *write(name, *solutions, **rules))


def core(solution):
    return solution.problem, solution.steps, solution.labels


@pytest.mark.parametrize(
    "name",
    ["trl", "math_shepherd", "openrlhf", "rlhflow", "processbench", "prmbench"]
    + ["prm800k", "omegaprm_tree", "omegaprm_flat"],
)
def test_verdicts_come_back(name):
    (found,) = round_trip(name, HARD)
    ratings = {True: Rating.GOOD, False: Rating.WRONG}
    values = {True: 1.0, False: 0.0}
    expected = {"prm800k": ratings, "omegaprm_tree": values, "omegaprm_flat": values}
    labels = tuple(expected.get(name, {}).get(x, x) for x in HARD.labels)
    assert core(found) == (QUESTION, STEPS, labels)


@pytest.mark.parametrize("name", ["trl", "openrlhf", "omegaprm_tree", "omegaprm_flat"])
def test_values_come_back_as_they_were(name):
    """0.9 is not 0 and not 1."""
    (found,) = round_trip(name, SOFT)
    assert core(found) == core(SOFT)
    assert all(type(label) is float for label in found.labels)


@pytest.mark.parametrize("name", ["math_shepherd", "rlhflow", "prmbench", "prm800k"])
def test_values_are_refused_where_only_verdicts_fit(name):
    with pytest.raises(FormatError, match="threshold"):
        write(name, SOFT)
    (found,) = round_trip(name, SOFT, threshold=0.5)
    assert found.labels in ((True, False), (Rating.GOOD, Rating.WRONG))


def test_counts_are_written_as_their_ratio():
    x = LabelledSolution(QUESTION, STEPS, (Counts(3, 4), Counts(0, 4)))
    (row,) = write("trl", x)
    assert row["labels"] == [0.75, 0.0]


@pytest.mark.parametrize("line", formats.table().splitlines()[1:-1])
def test_the_table_says_what_each_format_carries(line):
    """Outcome, answer, trees and ids that come back, and no others."""
    name = line.split()[0]
    outcome, answer, tree = line[formats.table().index("outcome") :].split()[:3]
    chain = LabelledSolution(
        *(QUESTION, STEPS, (True, False)),
        id="x-1",
        outcome=False,
        answer="4",
        scores=(0.5, 0.25),
    )
    (*_, found) = round_trip(name, chain)
    assert (found.outcome is False) == (outcome == "yes")
    assert (found.answer == "4") == (answer == "yes")
    keeps_id = ("omegaprm_tree", "omegaprm_flat", "processbench", "prmbench")
    assert (found.id == "x-1") == (name in (*keeps_id, "completions"))
    branches = [
        LabelledSolution(QUESTION, (STEPS[0], step), (True, False), id="t")
        for step in ("Step 2: a", "Step 2: b")
    ]
    rows = write(name, *branches)
    assert (len(rows) == 1) == (tree == "yes" or name == "completions")


# ---------------------------------------------------------------- TRL


def test_trl_labels_of_a_row_are_of_one_type():
    """A column of booleans and numbers cannot be loaded as a table."""
    (row,) = write("trl", LabelledSolution(QUESTION, STEPS, (True, 0.5)))
    assert row["labels"] == [1.0, 0.5]
    assert [type(x) for x in row["labels"]] == [float, float]


def test_trl_integers_and_chats_are_read():
    chat = [{"role": "user", "content": QUESTION}]
    (found,) = read(
        "trl", {"prompt": chat, "completions": ["a", "b"], "labels": [1, 0]}
    )
    assert found.problem == QUESTION
    assert found.labels == (True, False)
    assert all(type(x) is bool for x in found.labels)


# ---------------------------------------------------------------- Math-Shepherd


def shepherd(text, labelled):
    return {"input": text, "label": labelled, "task": "GSM8K"}


def test_the_tag_of_two_characters_is_aligned_with_one_of_the_label():
    """By index, each label would be read one character further left than the last."""
    text = f"{QUESTION} Step 1: a + b ки\nStep 2: c - d ки\nStep 3: e ки"
    labelled = f"{QUESTION} Step 1: a + b +\nStep 2: c - d -\nStep 3: e +"
    (found,) = read("math_shepherd", shepherd(text, labelled))
    assert found.steps == ("Step 1: a + b", "Step 2: c - d", "Step 3: e")
    assert found.labels == (True, False, True)
    assert found.problem == QUESTION


def test_a_tag_inside_the_question_labels_no_step():
    text = "Ann has 2 pens. ки She buys 2. How many? Step 1: 4 ки"
    labelled = "Ann has 2 pens. - She buys 2. How many? Step 1: 4 +"
    (found,) = read("math_shepherd", shepherd(text, labelled))
    assert (found.steps, found.labels) == (("Step 1: 4",), (True,))
    assert found.problem == "Ann has 2 pens.  She buys 2. How many?"
    assert found.metadata["labels_inside_problem"] == [False]


def test_the_first_step_is_found_without_its_marker_after_the_question_mark():
    (found,) = read(
        "math_shepherd", shepherd("How many? 2 + 2 ки", "How many? 2 + 2 -")
    )
    assert core(found) == ("How many?", ("2 + 2",), (False,))


def test_a_text_after_the_last_tag_is_a_step_without_label():
    (found,) = read(
        "math_shepherd",
        shepherd("Q? Step 1: a ки Step 2: b", "Q? Step 1: a + Step 2: b"),
    )
    assert core(found) == ("Q?", ("Step 1: a", "Step 2: b"), (True, None))


@pytest.mark.parametrize(
    ("text", "labelled", "message"),
    [
        ("Q? Step 1: a", "Q? Step 1: a", "field 'input': no tag"),
        ("Q? Step 1: a ки", "Q? Step 1: b +", "field 'label': it is not the input"),
        ("Q? Step 1: a ки", "Q? Step 1: a *", r"field 'label': '\*' must be \+ or -"),
        ("Q? Step 1: a ки", "Q? Step 1: a +x", "field 'label': text follows"),
        ("no question ки", "no question +", "field 'input': neither 'Step 1:'"),
    ],
)
def test_rows_of_math_shepherd_that_do_not_fit(text, labelled, message):
    with pytest.raises(FormatError, match=f"sample.jsonl, line 1, {message}"):
        read("math_shepherd", shepherd(text, labelled))


def test_markers_are_added_where_the_first_step_has_none():
    (found,) = round_trip(
        "math_shepherd", LabelledSolution("Solve.", ("a", "b"), (True, False))
    )
    assert core(found) == ("Solve.", ("Step 1: a", "Step 2: b"), (True, False))


@pytest.mark.parametrize("name", ["math_shepherd", "openrlhf", "rlhflow"])
@pytest.mark.parametrize(
    ("problem", "steps", "message"),
    [
        (QUESTION, ("Step 1: a ки b",), "contains the tag"),
        ("What is ки?", ("a",), "contains the tag"),
        ("What does Step 1: say?", ("a",), "contains 'Step 1:'"),
        (QUESTION, (), "there is none"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(name, problem, steps, message):
    x = LabelledSolution(problem, steps, (True,) * len(steps))
    with pytest.raises(FormatError, match=message):
        write(name, x)


@pytest.mark.parametrize("name", ["math_shepherd", "openrlhf", "rlhflow"])
def test_a_first_step_that_says_its_marker_again_comes_back(name):
    x = LabelledSolution(QUESTION, ("Let us see. Step 1: add.",), (True,))
    (found,) = round_trip(name, x)
    assert found.steps == ("Step 1: Let us see. Step 1: add.",)


# ---------------------------------------------------------------- OpenRLHF, RLHFlow


def test_openrlhf_reads_marks_and_numbers_under_either_name():
    text = "Q? Step 1: a ки\nStep 2: b ки"
    for field in ("value", "label"):
        (marks,) = read("openrlhf", {"input": text, field: ["+", "-"]})
        (numbers,) = read("openrlhf", {"input": text, field: [0.5, 1.0]})
        assert (marks.labels, numbers.labels) == ((True, False), (0.5, 1.0))


def test_openrlhf_needs_a_label_for_each_placeholder():
    with pytest.raises(FormatError, match="field 'value': 1 labels for 2 placeholders"):
        read("openrlhf", {"input": "Q? Step 1: a ки b ки", "value": ["+"]})


def test_rlhflow_puts_the_question_before_the_first_step():
    (row,) = write("rlhflow", HARD)
    assert row["conversations"][0]["content"] == f"{QUESTION} {STEPS[0]}"
    assert [m["content"] for m in row["conversations"][1::2]] == ["+", "-"]
    row["conversations"].pop()
    with pytest.raises(FormatError, match="2 steps and 1 labels"):
        read("rlhflow", row)


# ---------------------------------------------------------------- PRM800K


def prm800k_row(*steps):
    return {
        "labeler": "A",
        "timestamp": "T",
        "question": {"problem": QUESTION, "ground_truth_answer": "4"},
        "label": {"steps": list(steps), "finish_reason": "solution"},
    }


def rated(*ratings, chosen=None, human=None):
    completions = [
        {"text": f"{i} {rating}", "rating": rating, "flagged": False}
        for i, rating in enumerate(ratings)
    ]
    return {
        "completions": completions or None,
        "human_completion": human,
        "chosen_completion": chosen,
    }


def test_ratings_of_prm800k_are_four_different_things():
    row = prm800k_row(rated(1, 0, -1, None, chosen=0))
    labels = {s.steps[0]: s.labels[0] for s in read("prm800k", row)}
    assert labels == {
        "0 1": Rating.GOOD,
        "1 0": Rating.NEUTRAL,
        "2 -1": Rating.WRONG,
        "3 None": None,
    }
    assert write("prm800k", *read("prm800k", row)) == [row]


def test_branches_of_prm800k_are_solutions_and_no_chain():
    """Steps one after another would hold two versions of one step."""
    row = prm800k_row(rated(-1, 1, chosen=1), rated(1, chosen=0))
    found = [s.steps for s in read("prm800k", row)]
    assert found == [("0 -1",), ("1 1", "0 1")]


def test_a_person_s_step_goes_on_and_has_no_label():
    human = {"text": "by hand", "rating": None, "source": "human", "flagged": False}
    row = prm800k_row(rated(-1, human=human), rated(1, chosen=0))
    found = read("prm800k", row)
    assert found[-1].steps == ("by hand", "0 1")
    assert found[-1].labels == (None, Rating.GOOD)
    assert write("prm800k", *found) == [row]


def test_null_completions_end_a_row():
    """A labeller who gave up left a step without anything in it."""
    row = prm800k_row(rated(1, chosen=0), rated())
    (found,) = read("prm800k", row)
    assert found.steps == ("0 1",)
    assert write("prm800k", found) == [row]


def test_an_unchosen_last_step_of_several_versions_comes_back():
    row = prm800k_row(rated(1, chosen=0), rated(-1, 1))
    found = read("prm800k", row)
    assert [s.labels[-1] for s in found] == [Rating.WRONG, Rating.GOOD]
    assert write("prm800k", *found) == [row]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([rated(1), rated(1, chosen=0)], r"steps\[1\]'.*no chosen completion"),
        ([rated(1, chosen=3)], r"steps\[0\]'.*'chosen_completion': there is no"),
        ([rated(2, chosen=0)], r"steps\[0\]'.*'rating': 2 must be -1, 0, 1"),
        ([3], r"'steps\[0\]': 3 must be an object"),
    ],
)
def test_errors_of_prm800k_name_the_step(steps, message):
    with pytest.raises(FormatError, match=f"sample.jsonl, line 1.*{message}"):
        read("prm800k", prm800k_row(*steps))


def critic_row(responses, step, rating, *, preferred=False, human=False):
    return {
        "instruction": QUESTION,
        "responses": responses,
        "next_response": step,
        "answer": None,
        "is_human_response": human,
        "is_solution": False,
        "is_preferred_response": preferred,
        "rating": rating,
    }


def test_labels_of_earlier_steps_come_from_earlier_rows():
    rows = [
        critic_row([], "a", 1, preferred=True),
        critic_row(["a"], "b", -1),
        critic_row(["a"], "h", None, preferred=True, human=True),
        critic_row(["a", "h"], "c", 0),
    ]
    found = read("stepwise_critic", *rows)
    assert found[-1].labels == (Rating.GOOD, None, Rating.NEUTRAL)
    assert write("stepwise_critic", *found) == rows
    kept = [*formats.without_prefixes(found)]
    assert [s.steps for s in kept] == [("a", "b"), ("a", "h", "c")]


def test_ratings_of_another_problem_are_forgotten():
    other = critic_row(["a"], "b", 1) | {"instruction": "Another?"}
    found = read("stepwise_critic", critic_row([], "a", 1, preferred=True), other)
    assert found[1].labels == (None, Rating.GOOD)


def test_a_chain_becomes_one_critic_row_per_step():
    rows = write("stepwise_critic", HARD)
    assert [(len(r["responses"]), r["rating"]) for r in rows] == [(0, 1), (1, -1)]
    assert [s.labels for s in read("stepwise_critic", *rows)] == [
        (Rating.GOOD,),
        (Rating.GOOD, Rating.WRONG),
    ]


# ---------------------------------------------------------------- OmegaPRM


def leaf(text, value, *children):
    return {"text": text, "mc_value": value, "children": list(children)}


def omega(steps):
    return {
        "question": QUESTION,
        "final_answer": "4",
        "reasoning_steps": steps,
        "question_id": 7,
        "level": 3,  # a column that the format does not know stays
    }


def test_a_tree_is_its_paths_and_comes_back():
    """Also of two children with the same text, which are two nodes."""
    row = omega(
        leaf(
            QUESTION,
            0.5,
            leaf("a", 0.25, leaf("b", 1.0), leaf("c", 0)),
            leaf("a", 0.75, leaf("d", 0.5)),
        )
    )
    found = read("omegaprm_tree", row)
    assert [s.steps for s in found] == [("a", "b"), ("a", "c"), ("a", "d")]
    assert [s.labels for s in found] == [(0.25, 1.0), (0.25, 0.0), (0.75, 0.5)]
    assert {s.root_label for s in found} == {0.5}
    assert {s.answer for s in found} == {"4"}
    assert write("omegaprm_tree", *found) == [row]


def test_flat_prefixes_are_taken_apart_and_come_back():
    prefixes = ["", "\n\na", " A", "\n\na\n\nb", "\n\na", "\n\na c"]
    values = [0.5, 0.25, 1.0, 0.125, 0.75, 0.0]
    row = omega(
        [
            {"solution_prefix": QUESTION + p, "mc_value": v}
            for p, v in zip(prefixes, values, strict=True)
        ]
    )
    found = read("omegaprm_flat", row)
    assert {s.steps: s.labels for s in found} == {
        ("A",): (1.0,),
        ("a", "b"): (0.25, 0.125),
        ("a",): (0.75,),
        ("a", "c"): (0.25, 0.0),
    }
    assert write("omegaprm_flat", *found) == [row]


def test_flat_and_tree_tell_the_same():
    tree = omega(leaf(QUESTION, 0.5, leaf("a", 0.25, leaf("b", 1.0), leaf("c", 0.0))))
    solutions = read("omegaprm_tree", tree)
    flat = write("omegaprm_flat", *solutions)
    assert [e["mc_value"] for e in flat[0]["reasoning_steps"]] == [0.5, 0.25, 1.0, 0.0]
    again = read("omegaprm_flat", *flat)
    assert [core(s) for s in again] == [core(s) for s in solutions]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (leaf(QUESTION, 1.5), "field 'mc_value': 1.5 must lie"),
        (leaf(QUESTION, 1, leaf("a", "x")), r"children\[0\].*'mc_value': 'x' must be"),
        (leaf(QUESTION, 1, 3), r"children\[0\]': 3 must be an object"),
    ],
)
def test_errors_of_a_tree_name_the_node(steps, message):
    with pytest.raises(FormatError, match=f"line 1.*{message}"):
        read("omegaprm_tree", omega(steps))


def test_a_flat_prefix_of_another_question_is_refused():
    row = omega([{"solution_prefix": "Else", "mc_value": 1}])
    with pytest.raises(FormatError, match=r"reasoning_steps\[0\].solution_prefix"):
        read("omegaprm_flat", row)


# ---------------------------------------------------------------- ProcessBench, PRMBench


def process_row(label, num_steps=3):
    return {
        "id": "gsm8k-0",
        "generator": "G",
        "problem": QUESTION,
        "steps": [f"s{i}" for i in range(num_steps)],
        "final_answer_correct": False,
        "label": label,
    }


@pytest.mark.parametrize(
    ("label", "labels"),
    [
        (-1, (True, True, True)),
        (0, (False, None, None)),
        (1, (True, False, None)),
        (2, (True, True, False)),
    ],
)
def test_steps_after_the_first_error_have_no_label_in_processbench(label, labels):
    (found,) = read("processbench", process_row(label))
    assert found.labels == labels
    assert found.first_error_index == label
    assert found.outcome is False
    assert write("processbench", found) == [process_row(label)]


@pytest.mark.parametrize("label", [3, -2, None, True, "1"])
def test_a_label_of_processbench_that_is_no_step_is_refused(label):
    with pytest.raises(FormatError, match="line 1, field 'label'"):
        read("processbench", process_row(label))


def test_labels_after_the_first_error_stay_where_a_format_has_them():
    x = LabelledSolution(QUESTION, ("a", "b", "c"), (True, False, True))
    assert write("processbench", x)[0]["label"] == 1
    (found,) = round_trip("trl", x)
    assert found.labels == (True, False, True)


def test_an_unknown_step_before_the_first_error_has_no_place_in_processbench():
    x = LabelledSolution(QUESTION, ("a", "b"), (None, False))
    with pytest.raises(FormatError, match=r"labels\[0\]"):
        write("processbench", x)


def prmbench_row(errors):
    return {
        "original_question": QUESTION,
        "modified_question": QUESTION + "!",
        "original_process": ["a", "b"],
        "modified_process": ["a", "x", "c"],
        "modified_steps": [2],
        "error_steps": errors,
        "reason": "why",
        "idx": "12",
        "classification": "redundency",
    }


def test_steps_of_prmbench_are_counted_from_one_and_all_have_labels():
    row = prmbench_row([2])
    (found,) = read("prmbench", row)
    assert found.labels == (True, False, True)
    assert (found.problem, found.id) == (QUESTION + "!", "12")
    assert write("prmbench", found) == [row]


def test_error_steps_past_the_end_are_ignored_and_kept():
    row = prmbench_row([3, 9])
    (found,) = read("prmbench", row)
    assert found.labels == (True, True, False)
    assert write("prmbench", found) == [row]
    with pytest.raises(FormatError, match=r"error_steps\[0\]': 0: steps are counted"):
        read("prmbench", prmbench_row([0]))


# ---------------------------------------------------------------- completions


def test_the_empty_step_after_the_last_one_is_no_step_and_has_no_score():
    row = {
        "problem": QUESTION,
        "answer": "4",
        "level": 3,
        "unique_id": "x/1",
        "completions": ["a\n\n\\boxed{4}\n\n", "b"],
        "scores": [[0.5, 0.75, 0.01], [0.25]],
        "completion_tokens": [9, 2],
        "pred": "\\boxed{4}",
        "pred_naive@2": "\\boxed{4}",
    }
    found = read("completions", row)
    assert [s.scores for s in found] == [(0.5, 0.75), (0.25,)]
    assert [len(s.steps) for s in found] == [2, 1]
    assert write("completions", *found) == [row]


def test_scores_of_another_number_than_steps_are_refused():
    row = {"problem": "Q", "completions": ["a\n\nb"], "scores": [[0.5]]}
    with pytest.raises(FormatError, match=r"scores\[0\]': 1 scores for 2 steps"):
        read("completions", row)
    with pytest.raises(FormatError, match="field 'scores': 0 for 1 completions"):
        read("completions", row | {"scores": []})


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{4}", "4"),
        (r"\boxed{1} then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{ {a} b }", "{a} b"),
        (r"\boxed{open", None),
        ("4", None),
    ],
)
def test_predictions_are_taken_out_of_their_box(text, answer):
    assert formats.boxed_answer(text) == answer


# ---------------------------------------------------------------- token advantages


def with_tokens(*labels, root=0.5):
    tokens = TraceTokens((1, 2), ((3, 4, 0), (5, 0)))
    return LabelledSolution("Q", ("a", "b"), labels, root_label=root, tokens=tokens)


def test_each_token_gets_the_advantage_of_its_step():
    (row,) = write("token_advantages", with_tokens(Counts(1, 4), 1.0))
    assert row["completion_ids"] == [3, 4, 0, 5, 0]
    assert row["completion_advantages"] == [-0.25, -0.25, -0.25, 0.75, 0.75]
    (found,) = read("token_advantages", row)
    assert found.step_ids == (0, 0, 0, 1, 1)
    assert formats.token_advantages.row_of(found) == row


def test_advantages_and_ids_must_be_as_many():
    row = {"prompt_ids": [], "completion_ids": [1, 2], "completion_advantages": [0.5]}
    with pytest.raises(FormatError, match="1 advantages for 2 completion_ids"):
        read("token_advantages", row)
    row["completion_advantages"] = [0.5, 0.5]
    assert read("token_advantages", row)[0].step_ids == (0, 0)


def test_advantages_need_a_value_of_every_prefix_and_tokens():
    with pytest.raises(FormatError, match="field 'root_label'"):
        write("token_advantages", with_tokens(0.5, 0.5, root=None))
    with pytest.raises(FormatError, match="needs the token ids"):
        write("token_advantages", SOFT)
