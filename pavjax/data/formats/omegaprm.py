"""OmegaPRM: Monte-Carlo values of the prefixes of many solutions of one problem.

    flat  {question, final_answer, question_id,
           reasoning_steps: [{solution_prefix, mc_value}, ..]}
    tree  {question, final_answer, question_id,
           reasoning_steps: {text, mc_value, children: [..]}}

The natural home of soft labels: `mc_value` is the share of completions of the prefix,
its last step included, that were correct; the root's is that of the bare question.
Luo et al. 2024 (arXiv:2406.06592), in the form of https://github.com/openreasoner/openr
"""

from pavjax.data.formats.records import LabelledSolution, is_soft, value_of
from pavjax.data.formats.trees import trees

SEPARATOR = "\n\n"


def read_tree(rows):
    """Rows -> solutions: the paths from the root to each leaf."""
    for row in rows:
        root = node_of(row, "reasoning_steps", row.get("reasoning_steps", dict))
        metadata = shared_metadata(row)
        if root["text"] != row.get("question", str):
            metadata["root_text"] = root["text"]
        for path in leaf_paths(root, []):
            yield solution_of(row, root["label"], path, metadata)


def read_flat(rows):
    """Rows -> solutions. A prefix continues the longest other one that it begins with;
    the text between the two is its step, without the white space that leads it."""
    for row in rows:
        question = row.get("question", str)
        entries = [
            entry_of(row, f"reasoning_steps[{i}]", x)
            for i, x in enumerate(row.get("reasoning_steps", list))
        ]
        for index, entry in enumerate(entries):
            if not entry["prefix"].startswith(question):
                row.fail(
                    f"reasoning_steps[{index}].solution_prefix",
                    "it does not begin with the question",
                )
        root_label, metadata = None, shared_metadata(row)
        for index, entry in enumerate(entries):
            if entry["prefix"] == question:
                root_label, metadata["root_entry"] = entry["label"], index
                break
        for path in prefix_paths(question, entries, metadata.get("root_entry")):
            extra = {**metadata, "separators": [step["separator"] for step in path]}
            yield solution_of(row, root_label, path, extra)


def solution_of(row, root_label, path, metadata):
    """One path of a row as a solution."""
    return LabelledSolution(
        problem=row.get("question", str),
        steps=tuple(step["text"] for step in path),
        labels=tuple(step["label"] for step in path),
        branch=tuple(step["place"] for step in path),
        id=row.get("question_id", (int, str), optional=True),
        root_label=root_label,
        answer=row.get("final_answer", str, optional=True),
        metadata=metadata,
        where=row.where,
    )


def shared_metadata(row):
    """What all solutions of a row carry besides the known fields."""
    known = ("question", "question_id", "final_answer", "reasoning_steps")
    return {"omegaprm": row.rest(*known)}


def node_of(row, field, value, place=0):
    """A node of the file with its checked fields."""
    inner = row.inner(field, value)
    return {
        "text": inner.get("text", str),
        "label": value_in(inner, "mc_value"),
        "place": place,
        "children": [
            node_of(row, f"{field}.children[{i}]", child, i)
            for i, child in enumerate(inner.get("children", list, optional=True) or [])
        ],
    }


def leaf_paths(node, path):
    """The lists of nodes from below `node` to each leaf."""
    if not node["children"]:
        yield path
    for child in node["children"]:
        yield from leaf_paths(child, [*path, child])


def entry_of(row, field, value):
    """An entry of the flat form with its checked fields."""
    inner = row.inner(field, value)
    return {
        "prefix": inner.get("solution_prefix", str),
        "label": value_in(inner, "mc_value"),
    }


def prefix_paths(question, entries, root):
    """The lists of steps from the question to each entry that no other continues. An
    entry's place is its index in the file; of equal prefixes the first goes on."""
    first = {}
    for index, entry in enumerate(entries):
        if index != root:
            first.setdefault(entry["prefix"], index)
    by_length = sorted((p for p in first if p != question), key=len)
    paths, continued = {question: []}, set()
    for prefix in by_length:
        starts = [known for known in paths if prefix.startswith(known)]
        parent = max(starts, key=len)
        continued.add(parent)
        index = first[prefix]
        text = prefix[len(parent) :]
        step = text.lstrip() or text
        paths[prefix] = [
            *paths[parent],
            {
                "text": step,
                "separator": text[: len(text) - len(step)],
                "label": entries[index]["label"],
                "place": index,
            },
        ]
    for index, entry in enumerate(entries):
        path = paths[entry["prefix"]]
        if index == root or not path:
            if not by_length and index == root:
                yield []  # nothing but the question
            continue
        if path[-1]["place"] != index:  # an equal prefix came earlier
            last = {**path[-1], "label": entry["label"], "place": index}
            yield [*path[:-1], last]
        elif entry["prefix"] not in continued:
            yield path


def value_in(row, field):
    """A Monte-Carlo value as float, also where it is written 0 or 1; null is None."""
    value = row.get(field, (int, float), optional=True)
    if value is not None and not 0 <= value <= 1:
        row.fail(field, f"{value} must lie in [0, 1]")
    return None if value is None else float(value)


def write_tree(solutions, rules):
    """Solutions -> rows, one for each tree."""
    for run, root in trees(solutions):
        nested = {
            "text": run[0].metadata.get("root_text", root.text),
            "mc_value": mc_value(root.label, run[0], None, rules),
            "children": [nested_node(child, rules) for child in root.ordered()],
        }
        yield row_of(run[0], nested)


def nested_node(node, rules):
    """A node and all below it, as the tree form has them."""
    return {
        "text": node.text,
        "mc_value": mc_value(node.label, node.source, node.depth, rules),
        "children": [nested_node(child, rules) for child in node.ordered()],
    }


def write_flat(solutions, rules):
    """Solutions -> rows, one for each tree: its prefixes in the order of the file they
    come from, else parents before children."""
    for run, root in trees(solutions):
        entries = []
        root_value = mc_value(root.label, run[0], None, rules)
        if root_value is not None or "root_entry" in run[0].metadata:
            place = run[0].metadata.get("root_entry", -1)
            entries.append((place, root.text, root_value))
        collect(root, root.text, entries, rules)
        if "separators" in run[0].metadata:
            entries.sort(key=lambda entry: entry[0])
        yield row_of(
            run[0],
            [{"solution_prefix": text, "mc_value": x} for _, text, x in entries],
        )


def collect(node, prefix, entries, rules):
    """Append (place in the file, prefix, value) of all nodes below `node`."""
    for child in node.ordered():
        text = prefix + child.metadata("separators", SEPARATOR) + child.text
        value = mc_value(child.label, child.source, child.depth, rules)
        entries.append((child.place, text, value))
        collect(child, text, entries, rules)


def mc_value(label, solution, index, rules):
    """The number of a label: a verdict counts 1.0 or 0.0."""
    if label is None:
        return None
    if is_soft(label):
        return float(value_of(label))
    return float(label if index is None else rules.verdict(solution, index))


def row_of(solution, reasoning_steps):
    """A row of either form."""
    return {
        "question": solution.problem,
        "final_answer": solution.answer,
        "reasoning_steps": reasoning_steps,
        "question_id": solution.id,
        **solution.metadata.get("omegaprm", {}),
    }
