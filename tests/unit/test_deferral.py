"""Signals that have to wait."""

import os
import signal
import threading

import pytest

from ml_postgres_optimization.safety.deferral import deferred_signals


def send(number):
    os.kill(os.getpid(), number)


@pytest.fixture
def terminated():
    """A list that grows with each SIGTERM."""
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    yield received
    signal.signal(signal.SIGTERM, before)


def test_ctrl_c_waits_until_the_block_is_over():
    done = []
    with pytest.raises(KeyboardInterrupt), deferred_signals():
        send(signal.SIGINT)
        send(signal.SIGINT)
        done.append("the rest of the block")
    assert done == ["the rest of the block"]


def test_sigterm_reaches_its_handler_once_and_only_after_the_block(terminated):
    with deferred_signals():
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert terminated == []
    assert terminated == [signal.SIGTERM]


def test_blocks_may_be_nested(terminated):
    with deferred_signals():
        with deferred_signals():
            send(signal.SIGTERM)
        assert terminated == []
    assert terminated == [signal.SIGTERM]


def test_handlers_are_as_before_afterwards_and_after_an_exception_too(terminated):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ValueError, match="from the block"), deferred_signals():
        raise ValueError("from the block")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_is_not_lost_when_the_block_fails():
    with pytest.raises(KeyboardInterrupt) as interrupted, deferred_signals():
        send(signal.SIGINT)
        raise ValueError("from the block")
    assert isinstance(interrupted.value.__context__, ValueError)


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred_signals():
            send(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_is_touched():
    seen = []

    def work():
        with deferred_signals():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]
