"""Loading between two cells: only in a notebook, one step after another, and a step that fails stops nothing."""

import asyncio
import sys
import time
import types

import pytest


@pytest.fixture
def kernel(monkeypatch):
    from attnlib.widgets import beforehand

    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    monkeypatch.setattr(beforehand, "_REST", 0.02)
    monkeypatch.setattr(beforehand, "_BREATH", 0.005)
    return beforehand


def test_a_kernel_at_rest_does_all_steps(kernel):
    done = []

    async def cell():
        assert kernel.load_beforehand([lambda: done.append(1), lambda: 1 / 0, lambda: done.append(3)])
        assert done == []  # the cell itself does not wait
        await asyncio.sleep(0.5)

    asyncio.run(cell())
    assert done == [1, 3]


def test_cells_that_follow_one_another_are_not_held_up(kernel, monkeypatch):
    monkeypatch.setattr(kernel, "_REST", 0.2)
    done = []

    async def run_all():
        kernel.load_beforehand([lambda: done.append(1)])
        for _ in range(3):
            time.sleep(0.3)  # a cell keeps the loop busy for longer than the rest
            await asyncio.sleep(0.05)
        assert done == []
        await asyncio.sleep(1.0)

    asyncio.run(run_all())
    assert done == [1]


def test_nothing_is_loaded_outside_of_a_notebook(monkeypatch):
    from attnlib.widgets import beforehand

    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)

    async def program():
        return beforehand.load_beforehand([lambda: None])

    assert not asyncio.run(program())


def test_a_kernel_without_a_loop_is_left_alone(kernel):
    assert not kernel.load_beforehand([lambda: None])
