"""The queue of those who wait for the model."""

import threading

import pytest

from onellm.errors import BusyError
from onellm.serving.queue import RequestQueue


def test_first_come_first_served():
    queue = RequestQueue(limit=2)
    first, second, third = queue.join(), queue.join(), queue.join()
    assert [ticket.position for ticket in (first, second, third)] == [0, 1, 2]
    assert first.wait(0) and not second.wait(0)
    second.leave()  # somebody gives up
    assert third.position == 1 and not third.wait(0)
    first.leave()
    assert third.wait(0) and third.position == 0
    third.leave()
    third.leave()
    assert len(queue) == 0


def test_a_full_queue_says_when_to_come_again():
    queue = RequestQueue(limit=1)
    queue.join(), queue.join()
    with pytest.raises(BusyError, match=r"ask again in about \d+ s") as refused:
        queue.join()
    assert refused.value.seconds > 0
    assert len(queue) == 2


def test_turns_never_overlap():
    queue, inside, most = RequestQueue(limit=50), [], []

    def work():
        with queue.turn():
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(most) == 30 and max(most) == 1
