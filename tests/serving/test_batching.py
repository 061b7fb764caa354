"""The queue: answers never mixed up, a lone picture at once, room that is counted in pictures."""

import asyncio
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.batching import Batcher, BusyError


class Doubling:
    """A network whose answer tells which picture, and which network, it is of."""

    def __init__(self, name, most):
        self.name, self.most, self.sizes = name, most, []

    def score(self, pixels):
        assert len(pixels) <= self.most
        self.sizes.append(len(pixels))
        return [(self.name, int(one[0])) for one in pixels]


def picture(number):
    return np.full(3, number)


REQUEST = st.tuples(st.sampled_from("ab"), st.lists(st.integers(0, 10_000), min_size=1, max_size=9), st.booleans())


@settings(max_examples=60, deadline=None)
@given(requests=st.lists(REQUEST, min_size=1, max_size=25), most=st.integers(1, 8))
def test_everybody_gets_the_answers_to_their_own_pictures(requests, most):
    """Also while two versions answer side by side, and while some clients go away in the middle."""
    networks = {name: Doubling(name, most) for name in "ab"}

    async def main():
        batcher = Batcher(most, 1000)

        async def ask(name, numbers, leaves):
            asked = asyncio.ensure_future(batcher.score(networks[name], [picture(n) for n in numbers]))
            if leaves:
                await asyncio.sleep(0)
                asked.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asked
                return
            assert await asked == [(name, n) for n in numbers]

        await asyncio.gather(*(ask(*request) for request in requests))
        assert batcher.waiting == 0
        batcher.close()

    asyncio.run(main())


class Slow:
    """A network that waits to be let go."""

    def __init__(self):
        self.go, self.sizes = threading.Event(), []

    def score(self, pixels):
        self.sizes.append(len(pixels))
        assert self.go.wait(30)
        return [int(one[0]) for one in pixels]


def test_a_lone_picture_is_scored_at_once_and_the_next_batch_is_what_gathered_meanwhile():
    async def main():
        network, batcher = Slow(), Batcher(4, 100)
        asked = [asyncio.ensure_future(batcher.score(network, [picture(0)]))]
        while not network.sizes:
            await asyncio.sleep(0)
        assert network.sizes == [1]  # nobody else was waited for
        asked += [asyncio.ensure_future(batcher.score(network, [picture(n), picture(n)])) for n in (1, 2, 3)]
        await asyncio.sleep(0.01)
        network.go.set()
        assert await asyncio.gather(*asked) == [[0], [1, 1], [2, 2], [3, 3]]
        assert network.sizes == [1, 4, 2]  # pictures are counted, not requests
        batcher.close()

    asyncio.run(main())


def test_a_network_that_fails_fails_those_in_its_batch_and_nobody_after_them():
    class Failing(Slow):
        def score(self, pixels):
            if 13 in pixels:
                raise ValueError("thirteen")
            return [int(one[0]) for one in pixels]

    async def main():
        network, batcher = Failing(), Batcher(1, 100)
        answers = await asyncio.gather(
            *(batcher.score(network, [picture(n)]) for n in (12, 13, 14)), return_exceptions=True
        )
        assert answers[0] == [12]
        assert isinstance(answers[1], ValueError)
        assert answers[2] == [14]
        batcher.close()

    asyncio.run(main())


def test_a_network_that_answers_too_little_is_an_error_not_a_shift():
    class Short(Slow):
        def score(self, pixels):
            return [int(one[0]) for one in pixels][1:]

    async def main():
        batcher = Batcher(4, 100)
        with pytest.raises(RuntimeError, match="1 answers to 2 pictures"):
            await batcher.score(Short(), [picture(1), picture(2)])
        batcher.close()

    asyncio.run(main())


def test_room_is_counted_in_pictures_and_the_wait_comes_of_the_measured_rate():
    batcher = Batcher(4, 10)
    with batcher.admitted(8):
        with pytest.raises(BusyError) as refused, batcher.admitted(3):
            pass
        assert refused.value.seconds == 1
        assert batcher.inside == 8
        with batcher.admitted(2):
            assert batcher.inside == 10
            batcher._rate = 0.5  # two seconds a picture
            with pytest.raises(BusyError) as refused, batcher.admitted(4):
                pass
            assert refused.value.seconds == 8
    assert batcher.inside == 0
    with batcher.admitted(100):  # alone, or it would never be let in
        assert batcher.inside == 100
