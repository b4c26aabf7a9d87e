"""The garbage collector rests while libraries load: it comes back as it was, and nothing is kept from it."""

import gc
import weakref

import pytest

from attnlib.collector import paused


class Ring:
    """Refers to itself: only the collector can free it."""

    def __init__(self):
        self.itself = self


def test_what_is_dropped_meanwhile_is_collected_later():
    before = gc.get_freeze_count()
    with paused():
        assert not gc.isenabled()
        ring = weakref.ref(Ring())
    assert gc.isenabled()
    assert gc.get_freeze_count() == before
    gc.collect()
    assert ring() is None


def test_it_comes_back_after_an_error():
    with pytest.raises(ImportError), paused():
        raise ImportError("broken library")
    assert gc.isenabled()


def test_a_collector_that_is_off_stays_off():
    gc.disable()
    try:
        with paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_the_program_has_frozen_stays_frozen():
    gc.freeze()
    try:
        count = gc.get_freeze_count()
        with paused(), paused():
            pass
        assert gc.get_freeze_count() == count > 0
    finally:
        gc.unfreeze()
