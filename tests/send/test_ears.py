import socket
import sys
from collections.abc import Iterator
from selectors import EVENT_READ, EVENT_WRITE

import pytest

from bridge.send.ears import Ears, SelectorEars, ears


@pytest.fixture(params=["selector", "epoll"])
def listening(request: pytest.FixtureRequest) -> Iterator[Ears]:
    if request.param == "epoll" and sys.platform != "linux":
        pytest.skip("there is no epoll here")
    made = ears() if request.param == "epoll" else SelectorEars()
    yield made
    made.close()


def test_a_socket_is_heard_until_it_is_ignored_and_again_when_it_returns(listening: Ears) -> None:
    near, far = socket.socketpair()
    with near, far:
        far.send(b"x")
        listening.listen(near.fileno(), EVENT_READ)
        assert listening.hear(0) == [(near.fileno(), EVENT_READ)]
        listening.ignore(near.fileno())
        assert listening.hear(0) == []
        listening.listen(near.fileno(), EVENT_READ | EVENT_WRITE)
        assert listening.hear(0) == [(near.fileno(), EVENT_READ | EVENT_WRITE)]
        listening.listen(near.fileno(), EVENT_WRITE)
        assert listening.hear(0) == [(near.fileno(), EVENT_WRITE)]


def test_a_hang_up_is_heard(listening: Ears) -> None:
    near, far = socket.socketpair()
    with near:
        far.close()
        listening.listen(near.fileno(), EVENT_READ)
        ((fd, events),) = listening.hear(0)
        assert fd == near.fileno()
        assert events & EVENT_READ


def test_a_number_used_again_for_another_socket_is_heard(listening: Ears) -> None:
    near, far = socket.socketpair()
    listening.listen(number := near.fileno(), EVENT_READ)
    listening.ignore(number)
    near.close()
    far.close()
    near, far = socket.socketpair()
    with near, far:
        assert number in {near.fileno(), far.fileno()}
        here, there = (near, far) if near.fileno() == number else (far, near)
        listening.listen(here.fileno(), EVENT_READ)
        there.send(b"x")
        assert listening.hear(0) == [(number, EVENT_READ)]
