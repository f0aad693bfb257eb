import threading

from bridge.admin import Reloading
from bridge.decide.rulebook import Rulebook
from tests.admin.builders import RULES, a_book


class FakeRules:
    def __init__(self) -> None:
        self.book: Rulebook = a_book()
        self.fault: str | None = None
        self.reads = 0
        self.hold = threading.Event()
        self.hold.set()
        self.reading = threading.Event()

    def reload(self) -> bool:
        self.reads += 1
        self.reading.set()
        self.hold.wait(5)
        return False


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_file_is_looked_at_every_five_seconds_at_most() -> None:
    rules, clock = FakeRules(), Clock()
    current = Reloading(rules, monotonic=clock)
    for clock.now in (100, 104.9, 105, 105.1, 109.9, 110):
        current.book()
    assert rules.reads == 2  # at 105 and 110


def test_new_rules_are_handed_out_and_a_fault_is_passed_on() -> None:
    rules = FakeRules()
    current = Reloading(rules)
    rules.book = a_book(RULES + "\n# changed")
    rules.fault = "wrong since"
    assert current.book() is rules.book
    assert current.fault() == "wrong since"


def test_a_request_does_not_wait_for_another_that_reads_the_file() -> None:
    rules, clock = FakeRules(), Clock()
    current = Reloading(rules, monotonic=clock)
    clock.now += 5
    rules.hold.clear()
    first = threading.Thread(target=current.book)
    first.start()
    assert rules.reading.wait(5)
    clock.now += 5
    assert current.book() is rules.book
    assert rules.reads == 1
    rules.hold.set()
    first.join(5)
