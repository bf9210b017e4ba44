"""The line of those who wait for the model."""

import threading

import pytest

from onellm.errors import BusyError
from onellm.serving.queue import RequestQueue


def test_first_come_first_served():
    line = RequestQueue(limit=2)
    first, second, third = line.join(), line.join(), line.join()
    assert [ticket.place for ticket in (first, second, third)] == [0, 1, 2]
    assert first.wait(0) and not second.wait(0)
    second.leave()  # somebody gives up
    assert third.place == 1 and not third.wait(0)
    first.leave()
    assert third.wait(0) and third.place == 0
    third.leave()
    third.leave()
    assert len(line) == 0


def test_a_full_line_says_when_to_come_again():
    line = RequestQueue(limit=1)
    line.join(), line.join()
    with pytest.raises(BusyError, match=r"ask again in about \d+ s") as refused:
        line.join()
    assert refused.value.seconds > 0
    assert len(line) == 2


def test_turns_never_overlap():
    line, inside, most = RequestQueue(limit=50), [], []

    def work():
        with line.turn():
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(most) == 30 and max(most) == 1
