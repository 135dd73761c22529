"""Calls that never end are stopped, wherever the interrupt arrives; what else goes wrong is not hidden."""

import gc
import signal
import sys
import time

import pytest

from course_utils import counterexamples


def endless(work):
    while True:
        work(0)


def test_an_endless_call_is_stopped_whatever_handles_interrupts(monkeypatch):
    monkeypatch.setattr(counterexamples, "SECONDS_PER_CALL", 0.5)
    earlier = signal.signal(signal.SIGINT, lambda number, frame: None)  # as an event loop may leave behind
    try:
        with pytest.raises(TimeoutError, match="still running"):
            counterexamples._call_in_time(endless, (int,))
        assert signal.getsignal(signal.SIGINT) not in (signal.default_int_handler, earlier)
    finally:
        signal.signal(signal.SIGINT, earlier)


@pytest.mark.parametrize("caught", [True, False])
def test_an_endless_call_is_stopped_though_a_garbage_collection_swallows_the_interrupt(caught, monkeypatch):
    monkeypatch.setattr(counterexamples, "SECONDS_PER_CALL", 0.5)
    reports, swallowed = [], []
    monkeypatch.setattr(sys, "unraisablehook", reports.append)

    def slow_callback(phase, info):  # hypothesis listens to the collector, too
        try:
            time.sleep(0.2)
        except KeyboardInterrupt:
            swallowed.append(phase)
            gc.callbacks.remove(slow_callback)
            if not caught:
                raise

    gc.callbacks.append(slow_callback)
    try:
        with pytest.raises(TimeoutError, match="still running"):
            counterexamples._call_in_time(endless, (gc.collect,))
    finally:
        if slow_callback in gc.callbacks:
            gc.callbacks.remove(slow_callback)
    assert (len(swallowed), reports) == (1, [])


def test_what_else_cannot_be_raised_is_still_reported(monkeypatch):
    reports = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: reports.append(unraisable.exc_type))

    class Broken:
        def __del__(self):
            raise OSError

    assert counterexamples._call_in_time(lambda: [Broken(), 1][1], ()) == 1
    assert reports == [OSError]
