"""Label data at scale: written, read and trained on, and what memory that takes.

    python -m experiments.bench.labels --traces=1250000 --workdir=work/labels

in:   nothing; the traces are synthetic: 7 steps, and so 8 labelled prefixes each, whose
      values fall with every bad step
out:  WORKDIR/labels, a dataset that takes 0.6 kB per trace, and rates, bytes and memory in
      the terminal and in WORKDIR/labels.json. The dataset is removed at the end, unless
      `--keep`; the same command goes on after an interruption

Memory is that of the process alone (anonymous pages), at the end of each tenth of a
phase: parts of files that the system keeps in spare memory are not of it.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import jax
import numpy as np

from experiments import batches, cli, verifier
from experiments.stages import Workspace
from experiments.verifier_labels import TrainingLabels
from pavjax import data
from pavjax import train as updates
from pavjax.nets import TransformerConfig, make_policy, make_verifier
from pavjax.runtime import sharding
from pavjax.runtime.atomic import check_writable, write_json_atomic

STEPS, PROMPT_LEN, STEP_LEN, NUM_TOKENS = 7, 6, (4, 8), 64  # of a trace
NUM_PREFIXES, NUM_PROVERS, ATTEMPTS = STEPS + 1, 2, 4
GOOD, BAD, VOCABULARY = 1, 2, 16  # the first token of a step says how it is
BYTES = 1200  # of disk for each trace, more than they take
PARTS = 10  # of a phase, at whose ends it is measured
MODEL = {"depth": 1, "width": 32, "num_heads": 2, "num_kv_heads": 2, "head_dim": 16}
MODEL["mlp_width"] = 64


def main(argv=None):
    """The command line: write, read, train, and say what it took."""
    options = parse(argv)
    directory = options.workdir / "labels"
    check_writable(options.workdir, BYTES * options.traces)
    path = options.workdir / "labels.json"
    found = {"traces": options.traces, "prefixes": options.traces * NUM_PREFIXES}
    written = json.loads(path.read_text()) if path.exists() else {}
    if not (directory / "dataset_info.json").exists():
        found["write"] = write(options, str(directory))
        found["bytes"] = sum(each.stat().st_size for each in directory.iterdir())
    elif written.get("traces") == options.traces:
        found |= {name: written[name] for name in ("write", "bytes")}
    else:
        raise cli.ConfigError(f"{directory} holds other labels: remove it, or move it")
    write_json_atomic(path, found)
    found |= train(options)
    write_json_atomic(path, found)
    if not options.keep:
        shutil.rmtree(directory)
        shutil.rmtree(options.workdir / "index")
    return found


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench.labels",
        description="Write, read and train on label data; measure rates and memory.",
    )
    add = parser.add_argument
    add("--traces", type=int, default=1_250_000, help="of 8 labelled prefixes each")
    add("--shard_traces", type=int, default=10_000, help="traces per shard")
    add("--batch_size", type=int, default=256, help="traces per update")
    add("--epochs", type=float, default=1.0, help="to train for; 0.1 is a tenth")
    add("--workdir", type=Path, required=True, metavar="DIR")
    add("--keep", action="store_true", help="leave the dataset there")
    cli.add_debug_flag(parser)
    return parser.parse_args(argv)


def write(options, directory):
    """Write the dataset, a shard at a time."""
    count, size = options.traces, options.shard_traces
    num_shards = -(-count // size)
    phase = Phase("write", num_shards, "traces")
    present = data.list_shards(directory, "train", num_shards)
    for shard in sorted(set(range(num_shards)) - set(present)):
        num_traces = min(size, count - shard * size)
        records = traces(num_traces, shard)
        data.write_shard(directory, "train", shard, num_shards, records)
        phase.done(shard + 1, num_traces)
    data.finalize(directory)
    return phase.report()


def train(options):
    """Go over all traces for the index, read batches alone, and train on them."""
    mesh = sharding.make_mesh()
    workspace = Workspace(options.workdir, {"collect": options.workdir}, {})
    section = cli.load_config("configs/arithmetic.py:micro").verifier.to_dict()
    section |= {"batch_size": options.batch_size, "head": "value"}
    section["num_updates"] = round(
        options.epochs * options.traces / section["batch_size"]
    )
    phase = Phase("index", 1, "traces")
    labelled = TrainingLabels(workspace, section, False, jax.random.key(1))
    phase.done(1, options.traces)
    found = {"index": phase.report(), "updates": section["num_updates"]}

    num_reads = max(1, section["num_updates"] // 10)
    phase = Phase("read", num_reads, "traces")
    for step in range(1, num_reads + 1):
        labelled.rows(labelled.draw(step), verifier.NAMES)
        phase.done(step, section["batch_size"])
    found["read"] = phase.report()

    with jax.set_mesh(mesh):
        found |= run_updates(labelled, section, mesh)
    found["most_records_held"] = labelled.labels.most_held
    return found


def run_updates(labelled, section, mesh):
    """The updates of the verifier stage on a tiny network, and the loss on the way."""
    policy = make_policy(
        TransformerConfig(vocab_size=VOCABULARY, max_positions=NUM_TOKENS, **MODEL)
    )
    network = make_verifier(
        policy, head="value", num_provers=NUM_PROVERS, width=MODEL["width"]
    )
    params = network.init(jax.random.key(2), policy.init(jax.random.key(3)))
    state = updates.init_state(params, verifier.optimizer_of(section))
    update = verifier.make_update(network, section)
    put = batches.make_put(labelled, verifier.NAMES, section, mesh, "verifier")
    phase = Phase("train", section["num_updates"], "traces")
    losses = []
    for step in range(1, section["num_updates"] + 1):
        state, metrics = update(state, *put(labelled.draw(step)))
        if phase.done(step, section["batch_size"]):
            losses.append(round(float(metrics["loss"]), 4))
    return {"train": phase.report() | {"loss": losses}}


class Phase:
    """Rate and memory of a phase of so many parts."""

    def __init__(self, name, num_parts, unit):
        self.name, self.num_parts, self.unit = name, num_parts, unit
        self.marks = {-(-num_parts * part // PARTS) for part in range(1, PARTS + 1)}
        self.count, self.memory, self.start = 0, [], time.perf_counter()

    def done(self, part, count):
        """Note that a part is done; whether it was measured."""
        self.count += count
        if part not in self.marks:
            return False
        self.memory.append(own_memory())
        rate = self.count / (time.perf_counter() - self.start)
        print(
            f"{self.name}: {self.count:,} {self.unit}, {rate:,.0f}/s, "
            f"{self.memory[-1] / 1e6:.0f} MB",
            flush=True,
        )
        return True

    def report(self):
        seconds = time.perf_counter() - self.start
        return {
            "seconds": round(seconds, 1),
            "rate": round(self.count / seconds, 1),
            "unit": f"{self.unit}/s",
            "memory_bytes": self.memory,
        }


def own_memory():
    """Anonymous memory of this process, in bytes; -1 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return -1
    kilobytes = [line.split()[1] for line in lines if line.startswith("RssAnon")]
    return 1024 * int(kilobytes[0]) if kilobytes else -1


def traces(count, seed):
    """So many synthetic labelled traces, as `data.write_shard` takes them."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(*STEP_LEN, (count, STEPS))
    is_bad = rng.random((count, STEPS)) < 0.2
    ends = PROMPT_LEN + np.cumsum(lengths, axis=1)
    position = np.arange(NUM_TOKENS)
    step = (position >= ends[..., None]).sum(1)  # [N T], STEPS past the last one
    is_response = (position >= PROMPT_LEN) & (step < STEPS)
    step_ids = np.where(is_response, step, -1)
    tokens = rng.integers(BAD + 1, VOCABULARY, (count, NUM_TOKENS))
    starts = ends - lengths
    np.put_along_axis(tokens, starts, np.where(is_bad, BAD, GOOD), axis=1)
    tokens = np.where(position < ends[:, -1:], tokens, 0)
    num_bad = np.cumsum(np.pad(is_bad, ((0, 0), (1, 0))), axis=1)  # of each prefix
    value = 1 / (1 + np.exp(num_bad - 1.0))
    shape = (count, NUM_PREFIXES, NUM_PROVERS)
    fields = {
        "tokens": tokens,
        "prompt_len": np.full(count, PROMPT_LEN),
        "length": ends[:, -1],
        "step_ids": step_ids,
        "successes": rng.binomial(ATTEMPTS, value[..., None], shape),
        "attempts": np.full(shape, ATTEMPTS),
        "reward": rng.random(count) < value[:, -1],
        "problem_id": seed * count + np.arange(count),
        "source": np.zeros(count),
        "branch": np.full(count, -1),
        "reference_logprobs": np.where(is_response, -rng.random(tokens.shape), 0),
    }
    types = {name: np.float32 for name in ("reward", "reference_logprobs")}
    return {name: x.astype(types.get(name, np.int32)) for name, x in fields.items()}


if __name__ == "__main__":
    cli.guarded(main, sys.argv[1:])
