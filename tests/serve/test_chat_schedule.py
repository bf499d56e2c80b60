"""Which request runs where: fair, bounded, least recently used out."""

import random

import pytest

from serve_app.chat.schedule import (
    Load,
    QueueFullError,
    Run,
    Schedule,
    SlotState,
    Start,
    Stop,
    Ticket,
)


class World:
    """A schedule with made-up engines: turning over takes effect when the test says so."""

    def __init__(self, num_slots: int = 1, **limits) -> None:
        settings = {"idle_s": 100.0, "max_waiting": 10, "max_rollouts": 4} | limits
        self.schedule = Schedule(num_slots, **settings)
        self.now = 0.0
        self.running: list[Ticket] = []
        self.turning: list = []
        self.log: list[str] = []

    def ask(self, model: str, engine: str = "e", num_rollouts: int = 1) -> Ticket:
        ticket = Ticket(model, engine, num_rollouts)
        self.schedule.add(ticket)
        self.decide()
        return ticket

    def decide(self) -> None:
        for action in self.schedule.decide(self.now):
            if isinstance(action, Run):
                self.running.append(action.ticket)
                self.log.append(f"run {action.ticket.model}")
            else:
                self.turning.append(action)
                what = type(action).__name__.lower()
                self.log.append(f"{what} {action.slot.model or action.slot.number}")

    def turned(self) -> None:
        """All engines that were being turned over are ready, or gone."""
        while self.turning:
            action = self.turning.pop(0)
            if isinstance(action, Stop):
                self.schedule.emptied(action.slot)
            else:
                self.schedule.ready(action.slot, self.now)
            self.decide()

    def finish(self, ticket: Ticket) -> None:
        self.running.remove(ticket)
        self.schedule.done(ticket, self.now)
        self.decide()


def test_requests_for_the_active_model_run_together_and_join_those_that_run():
    world = World()
    first = world.ask("a")
    assert world.log == ["start a"]
    world.turned()
    second, third = world.ask("a"), world.ask("a")
    assert world.running == [first, second, third]


def test_another_model_of_the_same_architecture_swaps_its_weights_in_after_the_running_ones():
    world = World()
    first = world.ask("a")
    world.turned()
    other = world.ask("b")
    assert world.turning == [], "the weights must not change under a running request"
    world.finish(first)
    assert isinstance(world.turning[0], Load)
    world.turned()
    assert world.running == [other]


def test_another_architecture_replaces_the_engine():
    world = World()
    first = world.ask("a")
    world.turned()
    world.finish(first)
    world.ask("b", engine="other")
    assert isinstance(world.turning[0], Start)


def test_a_stream_of_requests_for_the_active_model_does_not_starve_another_model():
    world = World()
    running = [world.ask("a")]
    world.turned()
    waiting = world.ask("b")
    late = world.ask("a")
    assert late not in world.running, "it would overtake the one that waits for another model"
    world.finish(running[0])
    world.turned()
    assert world.running == [waiting]
    world.finish(waiting)
    world.turned()
    assert world.running == [late]


def test_all_that_wait_for_a_model_run_in_its_turn():
    world = World()
    first = world.ask("a")
    world.turned()
    bs = [world.ask("b")]
    world.ask("a")
    bs.append(world.ask("b"))
    world.finish(first)
    world.turned()
    assert world.running == bs, "one change of weights serves both"


def test_the_engine_used_least_recently_goes_and_an_idle_one_before_a_busy_one():
    world = World(num_slots=2)
    old, new = world.ask("a", "ea"), world.ask("b", "eb")
    world.turned()
    world.now = 1.0
    world.finish(old)
    world.now = 2.0
    world.finish(new)
    third = world.ask("c", "ec")
    assert world.turning[0].slot.number == 0
    world.turned()
    assert third in world.running
    world.ask("d", "ed")
    assert world.turning[0].slot.number == 1, "slot 0 is busy"


def test_the_queue_is_bounded():
    world = World(max_waiting=3)
    for _ in range(3):
        world.ask("a")
    with pytest.raises(QueueFullError, match="3 requests wait"):
        world.ask("a")


def test_no_more_rollouts_than_the_engine_is_given_run_at_once_and_order_is_kept():
    world = World(max_rollouts=4)
    first = world.ask("a", num_rollouts=3)
    world.turned()
    large, small = world.ask("a", num_rollouts=2), world.ask("a", num_rollouts=1)
    assert world.running == [first], "the small one must not overtake the large one"
    world.finish(first)
    assert world.running == [large, small]
    world.finish(large)
    world.finish(small)
    huge = world.ask("a", num_rollouts=9)
    assert world.running == [huge], "alone, it may be larger than the limit"


def test_a_request_that_was_sent_away_finds_its_model_loaded_when_it_comes_back():
    world = World()
    first = world.ask("a")
    world.turned()
    sent_away = world.ask("b")
    late = world.ask("a")
    world.schedule.leave(sent_away, keep_until_s=world.now + 2)
    world.finish(first)
    world.turned()
    assert world.schedule.slots[0].model == "b", "its turn came although its client is away"
    assert world.running == []
    world.now = 3.0
    back = world.ask("b")
    assert world.running == [back]
    world.finish(back)
    world.turned()
    assert world.running == [late]


def test_a_place_is_not_kept_for_ever():
    world = World()
    first = world.ask("a")
    world.turned()
    world.schedule.leave(world.ask("b"), keep_until_s=world.now + 2)
    world.finish(first)
    world.turned()
    waiting = world.ask("a")
    assert world.running == []
    world.now = 60.0
    world.decide()
    world.turned()
    assert world.running == [waiting]


def test_an_idle_engine_is_stopped_and_one_in_use_is_not():
    world = World(idle_s=10.0)
    first = world.ask("a")
    world.turned()
    world.now = 50.0
    world.decide()
    assert world.turning == []
    world.finish(first)
    world.now = 59.0
    world.decide()
    assert world.turning == []
    world.now = 61.0
    world.decide()
    assert [type(action) for action in world.turning] == [Stop]
    world.turned()
    assert world.schedule.slots[0].state is SlotState.EMPTY
    world.ask("a")
    assert world.log[-1] == "start a"


def test_a_request_whose_engine_died_goes_before_the_others():
    world = World()
    first = world.ask("a")
    world.turned()
    other = world.ask("b")
    slot = world.schedule.slots[0]
    world.running.remove(first)
    world.schedule.emptied(slot)
    world.schedule.done(first, world.now)
    world.schedule.add_first(first)
    world.decide()
    assert world.log[-1] == "start a"
    world.turned()
    assert world.running == [first]
    world.finish(first)
    world.turned()
    assert world.running == [other]


@pytest.mark.parametrize("seed", range(30))
def test_in_any_order_of_events_every_request_runs_and_no_model_waits_for_more_than_its_turn(seed):
    rng = random.Random(seed)
    world = World(num_slots=rng.choice([1, 2]), max_waiting=1000, max_rollouts=3)
    models = [("a", "e"), ("b", "e"), ("c", "f")]
    asked: list[Ticket] = []
    seen: set[Ticket] = set()
    for step in range(400):
        world.now += rng.random()
        event = rng.random()
        if event < 0.4 and step < 300:
            asked.append(world.ask(*rng.choice(models), num_rollouts=rng.randint(1, 3)))
        elif event < 0.7 and world.running:
            world.finish(rng.choice(world.running))
        else:
            world.turned()
        seen.update(world.running)
        for slot in world.schedule.slots:
            here = [t for t in world.running if t.slot is slot]
            assert {t.model for t in here} <= {slot.model}, "weights changed under a request"
            assert len(here) <= 1 or sum(t.num_rollouts for t in here) <= 3
    for _ in range(2 * len(asked)):
        world.turned()
        seen.update(world.running)
        for ticket in list(world.running):
            world.finish(ticket)
    assert seen == set(asked)
