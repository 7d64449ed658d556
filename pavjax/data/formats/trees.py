"""Solutions that share their first steps, as one tree.

A tree is told to the stream as its root-to-leaf paths, one solution each, next to each
other and with one id and problem; `branch` holds the place of each step among its
siblings. Solutions from formats that know no trees have no `branch`: equal texts in
equal places are then one node.
"""

import dataclasses

from pavjax.data.formats.records import runs


@dataclasses.dataclass
class Node:
    """One step of a tree with all that follows it."""

    text: str
    label: object
    place: int | None  # among its siblings, where the file gives one
    children: dict = dataclasses.field(default_factory=dict)
    source: object = None  # a solution that this step is on, and
    depth: int = 0  # its place in that solution's steps

    def ordered(self):
        """The children, in the order of the file they come from, else as they came."""
        nodes = list(self.children.values())
        if all(node.place is not None for node in nodes):
            nodes.sort(key=lambda node: node.place)
        return nodes

    def metadata(self, name, default=None):
        """The entry of this step in a per-step list of its solution's metadata."""
        values = self.source.metadata.get(name) if self.source else None
        return default if values is None else values[self.depth]


def trees(solutions):
    """(the solutions of a tree, its root) for each run of one id and problem. The root
    has the problem as its text and `root_label` as its label."""
    for run in runs(solutions, lambda s: (s.id, s.problem)):
        yield run, tree_of(run)


def tree_of(solutions):
    """The root of the tree of these solutions; two labels of one step are an error."""
    root = Node(solutions[0].problem, None, None)
    for solution in solutions:
        root.label = agreed(solution, "root_label", root.label, solution.root_label)
        node = root
        for depth, (text, label) in enumerate(
            zip(solution.steps, solution.labels, strict=True)
        ):
            place = solution.branch[depth] if solution.branch else None
            key = text if place is None else place
            if key not in node.children:
                node.children[key] = Node(text, label, place, {}, solution, depth)
            node = node.children[key]
            if node.text != text:
                solution.fail(
                    f"branch[{depth}]",
                    f"two steps are the child {place} of one step: {node.text!r} and "
                    f"{text!r}",
                )
            node.label = agreed(solution, f"labels[{depth}]", node.label, label)
    return root


def agreed(solution, field, known, label):
    """One of the two labels of a step, which must not contradict each other."""
    if known is None or label is None:
        return label if known is None else known
    if known != label:
        solution.fail(
            field, f"{label!r}, but another solution has {known!r} for the same step"
        )
    return known
