"""A sweep does every piece once, whatever dies in between, and says what decoding would."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import selfdraft_viz as sv
from selfdraft_viz.lab import sweep as sweep_module
from selfdraft_viz.lab.record import DenseRecord
from selfdraft_viz.lab.sweep import ModelSpec, sweep
from selfdraft_viz.lab.texts import shipped_prompts

MODELS = [ModelSpec(device="cpu"), ModelSpec(device="cpu", heads="logit lens", exit_layers=(2, 6))]
SETTINGS = {
    "bold": sv.Settings(sv.NoAnnealing(), 0.3, max_width=4, exit_layers=(2, 6)),
    "careful": sv.Settings(sv.NoAnnealing(), 0.9, max_width=4, exit_layers=(6,)),
}
PROMPTS = shipped_prompts(["stories", "python"], per_kind=2)
SMALL: dict[str, Any] = {"new_tokens": 8, "progress": False}


def test_rows_are_what_decoding_does(embedded: sv.Model, tmp_path: Path) -> None:
    table = sweep(MODELS[:1], PROMPTS[:2], SETTINGS, tmp_path, measure=True, **SMALL)
    assert len(table) == 1 * 2 * 2
    assert table["equal"].all()
    assert (table[["seconds_per_token", "plain_seconds_per_token"]] > 0).all(axis=None)
    for row in table.to_dict("records"):
        trace = embedded.generate(
            PROMPTS[row["prompt"]].text, SETTINGS[row["settings"]], max_new_tokens=8, stop_at_end=False
        )
        assert row["rounds"] == len(trace.rounds)
        assert row["accepted"] == trace.rounds["accepted"].sum()
        assert row["new_tokens"] == 7


def test_what_is_there_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sweep(MODELS[:1], PROMPTS[:2], {"bold": SETTINGS["bold"]}, tmp_path, **SMALL)
    files = sorted(tmp_path.rglob("*.parquet"))
    assert len(files) == 2
    assert all(DenseRecord.load(file).token_ids.shape[0] == 1 for file in files)
    written = [file.stat().st_mtime_ns for file in files]

    def load(*_: Any) -> None:
        raise AssertionError("the model was loaded again, though every record is there")

    monkeypatch.setattr(sweep_module, "_loaded", load)
    both = sweep(MODELS[:1], PROMPTS[:2], {**SETTINGS, "the same": SETTINGS["bold"]}, tmp_path, **SMALL)
    assert len(both) == 6
    again = both[both["settings"] == "bold"].reset_index(drop=True)
    assert again.equals(first)
    assert [file.stat().st_mtime_ns for file in files] == written
    other = sweep(MODELS[:1], PROMPTS[1::-1], SETTINGS, tmp_path, **SMALL)
    assert other["prompt"].tolist() == [0, 0, 1, 1]
    assert (
        other.loc[other["prompt"] == 0, "rounds"].tolist()
        == both.loc[(both["prompt"] == 1) & (both["settings"] != "the same"), "rounds"].tolist()
    )


def test_a_sweep_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, done = sweep_module.work, []

    def interrupted(piece: Any, stored: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(piece.key)
        return real(piece, stored)

    monkeypatch.setattr(sweep_module, "work", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep(MODELS[:1], PROMPTS, SETTINGS, tmp_path, **SMALL)
    assert len(list((tmp_path / "results").glob("*.json"))) == 2
    monkeypatch.setattr(sweep_module, "work", lambda piece, stored: done.append(piece.key) or real(piece, stored))
    table = sweep(MODELS[:1], PROMPTS, SETTINGS, tmp_path, **SMALL)
    assert len(table) == 8
    assert len(done) == len(set(done)) == 4, "each piece was done once over both calls"
    assert not list(tmp_path.rglob(".*")), "no half-written file is left"


def test_pieces_that_fail_are_named_and_the_others_kept(tmp_path: Path) -> None:
    models = [ModelSpec(device="cpu"), ModelSpec(name=str(tmp_path / "no model"), device="cpu")]
    with pytest.raises(sv.SelfDraftError, match=r"1 of 2 pieces failed; the first: .*no model"):
        sweep(models, PROMPTS[:1], SETTINGS, tmp_path / "sweep", **SMALL)
    assert len(list((tmp_path / "sweep" / "results").glob("*.json"))) == 1
    with pytest.raises(sv.SettingsError, match="give at least one of each"):
        sweep([], PROMPTS, SETTINGS, tmp_path)


@pytest.mark.slow
def test_processes_of_joblib_give_what_one_process_gives(tmp_path: Path) -> None:
    one = sweep(MODELS[:1], PROMPTS[:2], SETTINGS, tmp_path / "one", **SMALL)
    two = sweep(MODELS[:1], PROMPTS[:2], SETTINGS, tmp_path / "two", workers=2, **SMALL)
    assert two.equals(one)


@pytest.mark.slow
def test_a_worker_that_is_killed_half_way_loses_nothing_and_nothing_counts_twice(tmp_path: Path) -> None:
    """On a real cluster of two worker processes, one of which is killed while it works."""
    distributed = pytest.importorskip("distributed")
    records = tmp_path / "sweep" / "records"
    prompts = shipped_prompts(per_kind=3)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=tmp_path
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.run(os.environ.setdefault, "OMP_NUM_THREADS", "1")
        processes = client.run(os.getpid)
        nannies = list(cluster.workers.values())
        killed: list[int] = []

        def kill_one() -> None:
            while not list(records.glob("*.parquet")):
                time.sleep(0.01)
            killed.append(nannies[0].pid)
            os.kill(killed[0], signal.SIGKILL)

        killer = threading.Thread(target=kill_one)
        killer.start()
        table = sweep(MODELS, prompts, SETTINGS, tmp_path / "sweep", client=client, new_tokens=48, progress=False)
        killer.join()
        assert killed[0] in processes.values()
        assert killed[0] not in client.run(os.getpid).values()
    assert len(table) == len(MODELS) * len(prompts) * len(SETTINGS)
    assert not table.duplicated(["model", "prompt", "settings"]).any()
    assert len(list(records.glob("*.parquet"))) == len(MODELS) * len(prompts)
    alone = sweep(MODELS[:1], prompts[:2], SETTINGS, tmp_path / "alone", new_tokens=48, progress=False)
    columns = list(alone.columns)
    same = table[(table["model"] == str(MODELS[0])) & (table["prompt"] < 2)].reset_index(drop=True)
    assert same[columns].equals(alone)
