"""Tasks end even when something on their way swallows a cancel."""

import asyncio

from skyinfra.server.tasks import end_tasks


def test_a_task_that_swallows_the_first_cancel_ends_all_the_same():
    async def stubborn(swallowed):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            swallowed.append(True)
        await asyncio.sleep(60)

    async def failing():
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError("on the way out")

    async def scenario():
        swallowed = []
        tasks = [asyncio.create_task(stubborn(swallowed)), asyncio.create_task(failing())]
        await asyncio.sleep(0)
        await asyncio.wait_for(end_tasks(tasks), 10)
        assert swallowed == [True]
        assert [task.done() for task in tasks] == [True, True]
        assert isinstance(tasks[1].exception(), ValueError)
        await end_tasks([])

    asyncio.run(scenario())
