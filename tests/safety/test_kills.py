"""A run that is killed at any moment, as often as you like, ends as if nothing had happened."""

import signal
import time

import numpy as np
import training


def test_killed_at_any_moment(settings, scans, tmp_path, figure, soak):
    kills, recipe = soak(8, 100), training.write_recipe(settings, scans, tmp_path)
    chance, folders, begun_s = np.random.default_rng(6), training.fresh(tmp_path), time.monotonic()
    deaths, finished = {-signal.SIGKILL: 0, -signal.SIGXFSZ: 0}, 0
    with training.server() as order:
        unbroken = next(folders)
        done = order(recipe, unbroken)
        assert done["status"] == 0, done["said"]
        expected, order_of_data = training.left(unbroken), training.batches(f"{unbroken}.seen")[0]
        while sum(deaths.values()) < kills:
            runs, starts = next(folders), 0
            while True:
                left = kills - sum(deaths.values())
                moment = int(chance.integers(1, done["moments"])) if left else 0
                # half of them in the middle of a write: the size at which it breaks, from a byte to a whole file
                size = int(10 ** chance.uniform(0, 5.5)) if chance.random() < 0.5 else 0
                end = order(recipe, runs, moment, size)
                starts += 1
                if end["status"] == 0:
                    break
                assert end["status"] in deaths, end["said"]
                deaths[end["status"]] += 1
            found = training.left(runs)
            assert found.keys() == expected.keys()  # no file is missing, and none is left over
            assert [name for name in expected if found[name] != expected[name]] == []
            for batches in training.batches(f"{runs}.seen"):
                first = order_of_data.index(batches[0])
                assert batches == order_of_data[first : first + len(batches)]
            finished += 1
    figure(
        "kills of training runs survived, by SIGKILL and in the middle of a write",
        f"{kills} ({deaths[-signal.SIGKILL]} and {deaths[-signal.SIGXFSZ]}) at {done['moments']} possible moments in "
        f"{finished} runs, {time.monotonic() - begun_s:.0f} s",
        "weights, log, data order and files equal an unbroken run's, bit by bit",
    )
