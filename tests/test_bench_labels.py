"""The program that measures label data at scale, on a few labels."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments import cli, verifier_labels
from experiments.bench import labels as bench
from pavjax import arrays, data, labels

ROOT = Path(__file__).parents[1]


def test_synthetic_traces_are_traces():
    """Steps follow each other from the prompt to the end, and every prefix is labelled."""
    records = bench.traces(50, 3)
    step_ids, lengths = records["step_ids"], records["length"]
    is_response = arrays.response_mask(step_ids)
    assert (is_response.sum(1) == lengths - records["prompt_len"]).all()
    assert (np.asarray(arrays.num_steps(step_ids)) == bench.STEPS).all()
    for row, ids in enumerate(step_ids):
        response = ids[bench.PROMPT_LEN : lengths[row]]
        assert set(np.diff(response)) <= {0, 1} and response[0] == 0
        assert (records["tokens"][row, lengths[row] :] == 0).all()
        starts = bench.PROMPT_LEN + np.flatnonzero(np.diff(response, prepend=-1))
        assert set(records["tokens"][row, starts]) <= {bench.GOOD, bench.BAD}
    assert (records["attempts"] == bench.ATTEMPTS).all()
    successes, attempts = labels.token_labels(records, every_token=False)
    assert (attempts.sum(1) == bench.NUM_PREFIXES * bench.ATTEMPTS).all()
    assert (successes <= attempts).all()


@pytest.mark.slow
def test_ever_more_labels_are_held_no_more_at_once(tmp_path, monkeypatch):
    """Written, read and trained on with shards of 40: twice the traces, as many records
    at once, every one of which is read; and the same batches for the same step."""
    monkeypatch.chdir(ROOT)
    made = []
    original = verifier_labels.TrainingLabels

    def noted(*args):
        made.append(original(*args))
        return made[-1]

    monkeypatch.setattr(bench, "TrainingLabels", noted)
    for number, count in enumerate((100, 200)):
        workdir = tmp_path / str(count)
        options = [f"--traces={count}", "--shard_traces=40", "--batch_size=16"]
        found = bench.main([*options, f"--workdir={workdir}", "--epochs=1.3", "--keep"])
        assert found == json.loads((workdir / "labels.json").read_text())
        assert found["prefixes"] == 8 * count
        assert found["most_records_held"] == 40
        assert data.finalize(str(workdir / "labels")) == {"train": count}
        drawn = [made[number].draw(step) for step in range(1, count)]
        assert set(np.concatenate(drawn)) == set(range(count))
        assert found["train"]["loss"][-1] < 0.8  # it is a mean of log-losses, not NaN
    with pytest.raises(cli.ConfigError, match="holds other labels"):
        bench.main(["--traces=50", f"--workdir={workdir}"])
    again = bench.main([*options, f"--workdir={workdir}", "--epochs=0.1"])
    assert again["write"] == found["write"]
    assert not (workdir / "labels").exists()
