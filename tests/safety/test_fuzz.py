"""Files changed at random, of all kinds: the process lives, and only our errors are seen."""

import collections
import time
from concurrent.futures import ThreadPoolExecutor

import fuzz
import pytest
from verdicts import judge, judge_kind


@pytest.mark.parametrize("modality", fuzz.KINDS)
def test_changed_files(modality, tmp_path, figure, soak):
    count = soak(200, 2000)

    def try_one(number):
        path = fuzz.write(modality, number, tmp_path)
        begun_s = time.monotonic()
        try:
            verdict, said = judge(modality, path)
            seen = judge_kind(path)[0] if number % 4 == 0 else "not tried"
        except Exception as error:
            raise AssertionError(f"{modality} {number}: {error}") from error
        finally:
            path.unlink()
        return verdict, seen, said, time.monotonic() - begun_s, number

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(try_one, range(count)))
    verdicts = collections.Counter(result[0] for result in results)
    for verdict, _, said, seconds, number in results:
        if verdict == "died" or seconds > 5:
            print(f"{modality} {number}: {said} ({seconds:.1f} s)")
    slowest_s = max(result[3] for result in results)
    figure(
        f"{count} changed {modality} files",
        f"{verdicts['refused']} refused, {verdicts['sample']} read, readers ended {verdicts['died']}, "
        f"slowest {slowest_s:.1f} s",
        "this process never ends, only our errors",
    )
    assert sum(verdicts.values()) == count and verdicts["sample"] and verdicts["refused"]
