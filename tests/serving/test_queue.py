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


def test_nobody_takes_all_positions():
    """One asks seventeen times: others come right after the first of these, and find room."""
    queue = RequestQueue(limit=16)
    greedy = [queue.join("address:10.0.0.9") for _ in range(17)]
    with pytest.raises(BusyError):
        queue.join("address:10.0.0.9")
    for number in range(8):
        queue.check(f"cookie:{number}")
        other = queue.join(f"cookie:{number}")
        assert other.position == 1 + number and not other.wait(0)  # the greedy one's first is being answered
    assert len(queue) == 17
    for ticket in greedy[-8:]:
        with pytest.raises(BusyError, match=r"no more are taken; ask again in about \d+ s"):
            ticket.wait(0)
        ticket.leave()
    assert len(queue) == 17 and greedy[1].position == 9
    greedy[0].leave()
    assert greedy[1].position == 8  # his next one waits for theirs


def test_where_all_hold_the_same_the_queue_is_full():
    queue = RequestQueue(limit=3)
    tickets = [queue.join(owner) for owner in "abab"]
    assert [ticket.position for ticket in tickets] == [0, 1, 2, 3]
    with pytest.raises(BusyError):
        queue.join("b")
    late = queue.join("c")
    assert late.position == 2 and len(queue) == 4  # after the first ones of the others
    with pytest.raises(BusyError):
        queue.join("d") and queue.join("d")
