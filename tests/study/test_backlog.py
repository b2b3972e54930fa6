"""The backlog: order, tries, and who waits for whom."""

import threading

import pytest

from harness.study.backlog import Backlog


@pytest.fixture
def backlog():
    made = Backlog(first_pause=0.001, longest_pause=0.01)
    yield made
    made.close()


def test_tasks_are_done_in_order_in_another_thread(backlog):
    done = []
    for number in range(5):
        backlog.put(str(number), lambda number=number: done.append((number, threading.current_thread())) or True)
    assert backlog.drain()
    assert [number for number, _ in done] == list(range(5))
    assert {thread for _, thread in done}.isdisjoint({threading.main_thread()})
    assert len(backlog) == 0


def test_who_puts_a_task_does_not_wait_for_it(backlog):
    free = threading.Event()
    backlog.put("slow", lambda: free.wait(60))
    backlog.put("next", lambda: True)
    assert len(backlog) == 2
    free.set()
    assert backlog.drain()


def test_a_task_that_fails_is_tried_again_until_it_succeeds(backlog):
    tries = []
    backlog.put("late", lambda: tries.append(None) or len(tries) == 5)
    while len(backlog):
        threading.Event().wait(0.01)
    assert len(tries) == 5
    assert backlog.drain()


def test_a_task_that_always_fails_lets_the_others_pass_and_is_given_up_at_the_end(backlog):
    done, tries = [], []
    backlog.put("never", lambda: tries.append(None))
    for number in range(5):
        backlog.put(str(number), lambda number=number: done.append(number) or True)
    assert not backlog.drain(patience=3)
    assert done == list(range(5))
    assert len(backlog) == 1
    assert len(tries) >= 3


def test_a_later_task_of_the_same_name_stands_for_the_earlier(backlog):
    done, begun, free = [], threading.Event(), threading.Event()

    def first():
        begun.set()
        free.wait(60)
        done.append("first")
        return True

    backlog.put("trial", first)
    begun.wait(60)
    backlog.put("trial", lambda: done.append("second") or True)
    backlog.offer("trial", lambda: done.append("offered") or True)
    free.set()
    assert backlog.drain()
    assert done == ["first", "second"]


def test_what_a_task_raises_reaches_who_waits(backlog):
    def broken():
        raise ZeroDivisionError

    backlog.put("broken", broken)
    backlog.put("next", lambda: True)
    with pytest.raises(ZeroDivisionError):
        backlog.drain()


def test_nothing_is_begun_once_it_is_closed(backlog):
    done = []
    backlog.put("never", lambda: False)
    backlog.close()
    backlog.put("late", lambda: done.append(None) or True)
    assert done == []
    assert not [thread for thread in threading.enumerate() if thread.name == "tracking" and thread.is_alive()]
