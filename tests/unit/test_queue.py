"""The reconcile queue: each key once, one task at a key, and longer waits after failures."""

from __future__ import annotations

import asyncio

from pipelinejob_operator.queue import Queue

A, B = ("default", "a"), ("default", "b")


def test_a_key_wanted_twice_is_taken_once_and_the_earliest_wish_counts() -> None:
    async def story() -> None:
        queue = Queue()
        queue.add(A, 30)
        queue.add(B)
        queue.add(B)
        queue.add(A, 0.01)
        assert [await queue.take(), await queue.take()] == [B, A]
        assert len(queue) == 0

    asyncio.run(asyncio.wait_for(story(), 5))


def test_a_key_is_not_taken_by_two_and_news_that_come_meanwhile_are_not_lost() -> None:
    async def story() -> None:
        queue = Queue()
        queue.add(A)
        assert await queue.take() == A
        queue.add(A)
        second = asyncio.create_task(queue.take())
        await asyncio.sleep(0.05)
        assert not second.done()
        queue.done(A)
        assert await second == A
        queue.done(A)
        assert len(queue) == 0

    asyncio.run(asyncio.wait_for(story(), 5))


def test_a_failure_is_tried_again_later_each_time() -> None:
    async def story() -> None:
        queue, loop, waits = Queue(), asyncio.get_running_loop(), []
        queue.add(A)
        for _ in range(3):
            began = loop.time()
            await queue.take()
            waits.append(loop.time() - began)
            queue.add(A)  # news do not shorten the wait
            queue.done(A, failed=True)
        assert waits[0] < 0.1
        assert 0.2 < waits[1] < 0.7
        assert 0.45 < waits[2] < 1.3

    asyncio.run(asyncio.wait_for(story(), 10))


def test_a_failure_that_lasts_for_days_is_still_tried_every_minute() -> None:
    async def story() -> None:
        queue = Queue()
        for _ in range(3000):
            queue.done(A, failed=True)

    asyncio.run(asyncio.wait_for(story(), 5))


def test_takers_that_wait_are_woken_by_one_key_each() -> None:
    async def story() -> None:
        queue = Queue()
        takers = [asyncio.create_task(queue.take()) for _ in range(3)]
        await asyncio.sleep(0.01)
        queue.add(A)
        queue.add(B)
        done, waiting = await asyncio.wait(takers, timeout=0.3)
        assert sorted(task.result() for task in done) == [A, B]
        for task in waiting:
            task.cancel()

    asyncio.run(asyncio.wait_for(story(), 5))
