"""The house rules: floors, owners of libraries, sizes, docstrings, the README's tree."""

import ast
import functools
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pavjax

ROOT = Path(__file__).parents[1]
PACKAGES = ("pavjax", "experiments", "configs")
FILES = sorted(f for package in PACKAGES for f in (ROOT / package).rglob("*.py"))

# A unit is a module or sub-package of pavjax. It imports from lower floors only, and
# not from its neighbours.
FLOORS = (
    {"steps"},  # where a step ends, which all that follows builds on
    {
        "types",
        "arrays",
        "packing",
        "checksums",
        "grading",
    },  # grading reads plain strings
    {"pav", "provers", "losses", "search", "tabular"}  # algorithms
    | {"nets", "tasks", "data", "runtime", "decoding"},  # substrate
    {"labels", "train", "evaluate", "guided_decoding"},
    {"rl", "planted_rl", "step_scorers"},
)
ALGORITHMS = (
    *(
        "steps",
        "types",
        "arrays",
        "packing",
        "pav",
        "provers",
        "losses",
        "search",
        "tabular",
    ),
    *("rl", "planted_rl"),
)
# Who may import a third-party library, at the top of a file or inside a function.
OWNERS = {
    "flax": ("pavjax/nets/",),
    "optax": ("pavjax/runtime/", "pavjax/train.py"),
    "orbax": ("pavjax/runtime/",),
    "tensorflow_datasets": ("pavjax/data/",),
    "array_record": ("pavjax/data/",),
    "ml_collections": ("experiments/", "configs/"),
    "absl": ("experiments/",),
    "matplotlib": ("experiments/report",),
    "math_verify": ("pavjax/grading/symbolic_worker.py",),
    "reasoning_gym": ("pavjax/data/",),
    "scipy": ("pavjax/evaluate/",),
    "jinja2": ("pavjax/data/",),
    "rich": ("pavjax/runtime/progress.py", "experiments/"),
    "tensorboardX": ("pavjax/runtime/metrics.py",),
    "wandb": ("pavjax/runtime/metrics.py",),
    "safetensors": ("pavjax/nets/",),
    "huggingface_hub": ("pavjax/nets/pretrained.py",),
    "torch": ("experiments/check_model.py", "experiments/bench/peers.py"),
    "tokenizers": ("experiments/tiny_checkpoint.py",),
    "transformers": (
        *("pavjax/data/", "experiments/check_model.py"),
        *("experiments/tiny_checkpoint.py", "experiments/bench/peers.py"),
    ),
}
EVERYWHERE = {"jax", "chex", "numpy"}
HEAVY = {"flax", "orbax", "tensorflow_datasets", "array_record", "matplotlib", "scipy"}
HEAVY |= {"transformers", "tokenizers", "math_verify", "sympy"}
DRAWERS = {"util", "utils", "helper", "helpers", "misc", "common"}


@functools.cache
def parsed(file):
    return ast.parse(file.read_text())


def name_of(file):
    return file.relative_to(ROOT).as_posix()


def imported_modules(file):
    """Dotted names of everything that a file imports, `from a import b` as a.b."""
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(file)}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def unit_of(file):
    """pavjax/nets/verifier.py -> nets; pavjax/pav.py -> pav; not of pavjax -> None."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "pavjax" else None


def floor_of(unit):
    for floor, units in enumerate(FLOORS):
        if unit in units:
            return floor
    raise AssertionError(f"pavjax/{unit} has no floor: add it to FLOORS")


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_go_to_lower_floors_only(file):
    unit = unit_of(file)
    for module in imported_modules(file):
        first, *rest = module.split(".")
        if name_of(file).startswith("configs/"):
            assert first in {"configs", "ml_collections", "math"}, module
        elif unit is None or unit == "__init__":
            continue  # experiments, and the list of public names, see all of pavjax
        elif first == "pavjax" and rest[:1] != [unit]:
            assert rest, f"{name_of(file)} imports all of pavjax: say which part"
            assert floor_of(rest[0]) < floor_of(unit), (
                f"{name_of(file)} (floor {floor_of(unit)}) imports {module} "
                f"(floor {floor_of(rest[0])})"
            )
        else:
            assert first not in ("experiments", "configs"), module


def test_the_package_itself_loads_no_heavy_library():
    """So that `from pavjax import pav` waits for jax alone: names that bring more are
    imported from their own sub-package."""
    code = "import sys, pavjax; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True
    )
    assert not HEAVY & set(done.stdout.decode().split())


def test_the_public_names_are_there_and_sorted():
    assert list(pavjax.__all__) == sorted(set(pavjax.__all__))
    assert all(hasattr(pavjax, name) for name in pavjax.__all__)


@pytest.mark.parametrize(
    "file", [f for f in FILES if f.name == "__init__.py" and unit_of(f)], ids=name_of
)
def test_the_names_that_a_package_exports_are_there(file):
    package = importlib.import_module(".".join(file.relative_to(ROOT).parts[:-1]))
    exported = getattr(package, "__all__", [])
    assert [name for name in exported if not hasattr(package, name)] == []
    assert len(set(exported)) == len(exported)


def test_every_folder_of_the_library_is_a_package():
    """`pip install` without -e leaves out a folder that has no __init__.py."""
    folders = {f.parent for f in FILES if unit_of(f)}
    assert not [name_of(f) for f in folders if not (f / "__init__.py").exists()]


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_third_party_libraries_have_one_owner(file):
    for module in imported_modules(file):
        library = module.split(".")[0]
        if library in sys.stdlib_module_names or library in PACKAGES:
            continue
        if library not in EVERYWHERE:
            assert library in OWNERS, f"{name_of(file)}: {library} has no owner yet"
            assert name_of(file).startswith(OWNERS[library]), (
                f"{name_of(file)} imports {library}, which belongs to {OWNERS[library]}"
            )
        if unit_of(file) in ALGORITHMS:
            assert library in EVERYWHERE, f"{name_of(file)} is pure: {library}"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_files_and_functions_are_short(file):
    lines = len(file.read_text().splitlines())
    assert lines <= 300, f"{name_of(file)} has {lines} lines"
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.FunctionDef):
            lines = own_lines(node)
            assert lines <= 60, f"{name_of(file)}: {node.name} has {lines} lines"


def own_lines(function):
    """Lines of a function, without those of the functions that it defines: one that
    makes functions is as long as what is left."""
    inner = [
        node
        for node in ast.walk(function)
        if isinstance(node, ast.FunctionDef) and node is not function
    ]
    lines = set(range(function.lineno, function.end_lineno + 1))
    return len(lines.difference(*(range(f.lineno, f.end_lineno + 1) for f in inner)))


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_modules_and_the_public_functions_of_the_library_say_what_they_mean(file):
    assert ast.get_docstring(parsed(file)), f"{name_of(file)} has no docstring"
    for node in parsed(file).body if unit_of(file) else ():
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            is_public = not node.name.startswith("_")
            assert ast.get_docstring(node) or not is_public, (
                f"{name_of(file)}: {node.name} has no docstring"
            )


# Who may write without `runtime.atomic`, and why a reader sees no half of it even so.
WRITERS = {
    "pavjax/runtime/atomic.py": "all others write through it",
    "pavjax/checksums.py": "renames what it has written, below the floor of atomic",
    "pavjax/data/downloads.py": "renames what it has written, below that floor too",
    "pavjax/nets/checkpoint_files.py": "renames what it has written, likewise",
    "pavjax/nets/saving.py": "renames what it has copied, likewise",
    "pavjax/data/label_rows.py": "renames the folder that it has written, likewise",
    "pavjax/runtime/processes.py": "to /dev/null",
    "pavjax/runtime/metrics.py": "appends lines; readers leave out half a line",
    "pavjax/runtime/hardware.py": "asks the system to forget a peak, in /proc",
    "pavjax/grading/symbolic_worker.py": "a pipe",
    "experiments/jobs/directory.py": "a lock, whose text is for people",
}
WRITING = {"write_text", "write_bytes", "savez", "savez_compressed", "savefig"}
WRITING |= {"save_file", "copyfile", "copytree", "dump"}


def writes_of(file):
    """(line, name) of the calls that write a file under its own name: a mode with "w",
    "x", "a" or "+", or a function of WRITING that is not given an open file."""
    for node in ast.walk(parsed(file)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
        texts += [k.value.value for k in node.keywords if k.arg == "mode"]
        modes = [
            t for t in texts if isinstance(t, str) and re.fullmatch("[rwxabt+]+", t)
        ]
        if name in ("open", "fdopen") and any(set("wxa+") & set(m) for m in modes):
            yield node.lineno, name
        first = node.args[0] if node.args else None
        is_open = isinstance(first, ast.Name) and first.id in ("file", "buffer")
        if name in WRITING and not is_open:
            yield node.lineno, name


def test_files_are_written_in_one_piece():
    """A reader, or a run after a kill, sees no file that is half-written."""
    found = {name_of(file): [*writes_of(file)] for file in FILES}
    found = {name: writes for name, writes in found.items() if writes}
    bare = {name: writes for name, writes in found.items() if name not in WRITERS}
    assert not bare, f"use pavjax.runtime.atomic: {bare}"
    assert not set(WRITERS) - set(found), "these do not write any more"


def test_there_is_no_drawer_for_odds_and_ends():
    for file in FILES:
        assert not DRAWERS & set(re.split(r"[/_.]", name_of(file))), name_of(file)


def test_nothing_runs_on_import():
    """At module level: definitions, constants, and the __main__ guard."""
    for file in FILES:
        for node in parsed(file).body:
            assert not isinstance(node, ast.For | ast.While | ast.With | ast.Try), (
                f"{name_of(file)}, line {node.lineno}"
            )
            if isinstance(node, ast.Expr):
                assert isinstance(node.value, ast.Constant) or is_gradient(node), (
                    f"{name_of(file)}, line {node.lineno}: a call at module level"
                )


def is_gradient(node):
    """`function.defvjp(forward, backward)`, which is part of a definition."""
    call = node.value
    return (
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "defvjp"
    )


# ---------------------------------------------------------------- README


def listed_paths(readme):
    """Paths in the README's file tree: the fenced block with a line `pavjax/`, two
    spaces per level, first word = name, directories end with a slash."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    trees = [b for b in blocks if re.search(r"^pavjax/(\s|$)", b, re.MULTILINE)]
    assert len(trees) == 1, f"README.md has {len(trees)} file trees instead of one"
    paths, parents = [], []
    for line in filter(str.strip, trees[0].splitlines()):
        indent, name = re.match(r"( *)(\S+)", line).groups()
        del parents[len(indent) // 2 :]
        paths.append("".join(parents) + name)
        if name.endswith("/"):
            parents.append(name)
    return paths


def check_tree(paths, real):
    """Every listed path is real, every real file is listed: by itself, or by the last
    of its directories that is listed, if that has no files below it in the list."""
    folders = {f"{p}/" for f in real for p in map(str, Path(f).parents) if p != "."}
    missing = [p for p in paths if p not in real and p not in folders]
    assert not missing, f"README.md lists what does not exist: {missing}"
    assert len(set(paths)) == len(paths), "README.md lists a path twice"
    whole = tuple(
        p
        for p in paths
        if p.endswith("/") and not any(q != p and q.startswith(p) for q in paths)
    )
    unlisted = [f for f in real if f not in paths and not f.startswith(whole)]
    assert not unlisted, f"README.md does not list {unlisted}"


def test_the_readmes_file_tree_is_the_real_one():
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("no README.md yet")
    folders = (*PACKAGES, "tests")
    real = [name_of(f) for package in folders for f in (ROOT / package).rglob("*")]
    kinds = (".py", ".sh", ".jsonl")
    real = [f for f in real if f.endswith(kinds) and "__init__" not in f]
    listed = listed_paths(readme.read_text())
    check_tree([p for p in listed if p.startswith(folders)], real)


def test_the_tree_check_finds_what_is_missing_and_what_is_too_much():
    readme = (
        "# x\n```\npavjax/      the package\n  pav.py    one\n  nets/     two\n```\n"
    )
    paths = listed_paths(readme)
    assert paths == ["pavjax/", "pavjax/pav.py", "pavjax/nets/"]
    check_tree(paths, ["pavjax/pav.py", "pavjax/nets/a.py"])
    with pytest.raises(AssertionError, match=r"does not list \['pavjax/rl.py'\]"):
        check_tree(paths, ["pavjax/pav.py", "pavjax/nets/a.py", "pavjax/rl.py"])
    with pytest.raises(AssertionError, match=r"does not exist: \['pavjax/pav.py'\]"):
        check_tree(paths, ["pavjax/nets/a.py"])
