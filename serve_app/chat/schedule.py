"""Which request runs on which engine, and when an engine takes other weights. Pure.

Requests wait in the order in which they came. The oldest one whose model is held nowhere claims
an engine: nothing new is admitted to it, what runs on it drains, its weights change. All that wait
for the new model then run together, and the next claim is served: no model starves another. A
request that was sent away keeps its place for a while, for the client that comes back.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

RESERVED_S = 20.0  # a place is kept for so long after the client was to come back


class SlotState(Enum):
    """What a slot is doing."""

    EMPTY = "empty"
    STARTING = "starting"  # an engine is being started, or stopped first
    LOADING = "loading"  # its engine takes other weights
    READY = "ready"
    STOPPING = "stopping"


@dataclass(eq=False)
class Slot:
    """Room for one engine."""

    number: int
    state: SlotState = SlotState.EMPTY
    engine: str | None = None  # fingerprint of the architecture
    model: str | None = None  # whose weights it holds, or is getting
    num_running: int = 0  # requests
    num_rollouts: int = 0  # of these
    last_used_s: float = 0.0
    handle: Any = None  # the running engine, for the caller's use


@dataclass(eq=False)
class Ticket:
    """A request that waits, or the place of one that was sent away."""

    model: str
    engine: str
    num_rollouts: int = 1
    slot: Slot | None = None  # where it runs
    rides: bool = False  # waited when its model was loaded: goes before any claim
    reserved_until_s: float | None = None  # set: a kept place; nothing to run
    payload: Any = None  # for the caller's use


@dataclass(frozen=True)
class Run:
    """Let the ticket's request run on its slot."""

    ticket: Ticket


@dataclass(frozen=True)
class Start:
    """Start an engine in the slot; stop the one that is there."""

    slot: Slot
    ticket: Ticket  # says which


@dataclass(frozen=True)
class Load:
    """Load the ticket's model into the slot's engine."""

    slot: Slot
    ticket: Ticket


@dataclass(frozen=True)
class Stop:
    """Stop the slot's engine: nobody asks for it."""

    slot: Slot


Action = Run | Start | Load | Stop


class QueueFullError(RuntimeError):
    """Too many requests wait already."""


@dataclass
class Schedule:
    """The state of all slots. Every method is told the time; nothing here waits."""

    num_slots: int
    idle_s: float
    max_waiting: int
    max_rollouts: int  # running on one engine at once; one larger request runs alone
    slots: list[Slot] = field(init=False)
    waiting: list[Ticket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.slots = [Slot(number) for number in range(self.num_slots)]

    def add(self, ticket: Ticket) -> None:
        """Queue a request, in the place kept for its model if there is one."""
        for index, other in enumerate(self.waiting):
            if other.reserved_until_s is not None and other.model == ticket.model:
                self.waiting[index] = ticket
                return
        if sum(other.reserved_until_s is None for other in self.waiting) >= self.max_waiting:
            raise QueueFullError(f"{self.max_waiting} requests wait for an engine")
        self.waiting.append(ticket)

    def add_first(self, ticket: Ticket) -> None:
        """Queue a request again that its engine's death interrupted."""
        ticket.slot, ticket.rides = None, False
        self.waiting.insert(0, ticket)

    def leave(self, ticket: Ticket, *, keep_until_s: float | None = None) -> None:
        """The request no longer waits; with `keep_until_s` its place stays."""
        index = self.waiting.index(ticket)
        if keep_until_s is None:
            del self.waiting[index]
        else:
            kept = Ticket(ticket.model, ticket.engine, reserved_until_s=keep_until_s + RESERVED_S)
            self.waiting[index] = kept

    def done(self, ticket: Ticket, now_s: float) -> None:
        """The ticket's request has ended, however."""
        slot = ticket.slot
        if slot is not None:
            slot.num_running -= 1
            slot.num_rollouts -= ticket.num_rollouts
            slot.last_used_s = now_s
            ticket.slot = None

    def ready(self, slot: Slot, now_s: float) -> None:
        """The slot's engine holds the weights it was to get."""
        slot.state, slot.last_used_s = SlotState.READY, now_s
        for ticket in self.waiting:
            ticket.rides = ticket.model == slot.model

    def emptied(self, slot: Slot) -> None:
        """The slot's engine is gone: stopped, dead, or never came."""
        slot.state, slot.engine, slot.model = SlotState.EMPTY, None, None

    def decide(self, now_s: float) -> list[Action]:
        """What is to be done now. The slots are marked as if it had begun."""
        self.waiting = [t for t in self.waiting if (t.reserved_until_s or now_s) >= now_s]
        actions: list[Action] = []
        claims: dict[Slot, Ticket | None] = {}  # None: kept for a client that comes back
        full: set[Slot] = set()
        for ticket in list(self.waiting):
            slot = self._holder(ticket)
            if slot is None:
                self._claim(ticket, claims)
            elif ticket.reserved_until_s is not None:
                claims.setdefault(slot, None)
            elif slot.state is SlotState.READY and slot not in full:
                if not self._fits(ticket, slot):
                    full.add(slot)
                elif ticket.rides or claims.get(slot) is None:
                    actions.append(self._run(ticket, slot, now_s))
        for slot, ticket in claims.items():
            if ticket is not None and not slot.num_running:
                actions += self._turn_over(slot, ticket)
        return actions + self._stop_idle(claims, now_s)

    def _holder(self, ticket: Ticket) -> Slot | None:
        return next((s for s in self.slots if s.model == ticket.model), None)

    def _claim(self, ticket: Ticket, claims: dict[Slot, Ticket | None]) -> None:
        """Give the ticket a slot to wait for: its architecture's, an empty one, an idle one,
        the least recently used."""
        same = [slot for slot in self.slots if slot.engine == ticket.engine]
        free = [s for s in self.slots if s.state is SlotState.EMPTY and s not in claims]
        busy = [s for s in self.slots if s.state is SlotState.READY and s not in claims]
        oldest = sorted(busy, key=lambda s: (s.num_running > 0, s.last_used_s, s.number))
        slot = next(iter([*same, *free, *oldest]), None)
        if slot is not None:
            claims.setdefault(slot, ticket)

    def _fits(self, ticket: Ticket, slot: Slot) -> bool:
        return not slot.num_running or slot.num_rollouts + ticket.num_rollouts <= self.max_rollouts

    def _run(self, ticket: Ticket, slot: Slot, now_s: float) -> Run:
        self.waiting.remove(ticket)
        ticket.slot = slot
        slot.num_running += 1
        slot.num_rollouts += ticket.num_rollouts
        slot.last_used_s = now_s
        return Run(ticket)

    def _turn_over(self, slot: Slot, ticket: Ticket) -> list[Action]:
        """Bring another model into a slot where nothing runs."""
        if slot.state not in (SlotState.EMPTY, SlotState.READY):
            return []
        load = slot.state is SlotState.READY and slot.engine == ticket.engine
        slot.state = SlotState.LOADING if load else SlotState.STARTING
        slot.engine, slot.model = ticket.engine, ticket.model
        return [Load(slot, ticket) if load else Start(slot, ticket)]

    def _stop_idle(self, claims: dict[Slot, Ticket | None], now_s: float) -> list[Action]:
        actions: list[Action] = []
        for slot in self.slots:
            unused = slot.state is SlotState.READY and not slot.num_running and slot not in claims
            if unused and now_s - slot.last_used_s >= self.idle_s:
                slot.state = SlotState.STOPPING
                slot.model = slot.engine = None
                actions.append(Stop(slot))
        return actions
