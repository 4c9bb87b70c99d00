"""The cycle model: when every instruction starts and ends, from closed forms of their lengths and the semaphores between engines.

With an ideal memory each length is a closed form, and the model equals the simulated hardware cycle by cycle. With a shared DRAM,
bursts take turns in chunks as in `driver/memory.h`.
"""

from collections import deque
from dataclasses import dataclass, field

from billhook.ir.errors import MeasureError

from .accelerator import Accelerator
from .instructions import Execute, Instruction, Load, Step, Store
from .memory import Memory

FIRST_FETCH = 10  # cycles from the start of a step to the earliest start of an instruction
FETCH = 10  # and from the start of an instruction to the earliest of the next
FILL_AND_DRAIN = 7  # of the array's pipeline, beside its columns
STORE_PIPELINE = 5  # cycles from an accumulator's address to its result
_FREE = (1, 3, 5, 7)  # semaphores that start with the number of buffers


def execute_cycles(i: Execute, accelerator: Accelerator) -> int:
    """Start to end of an execute instruction: weights of the first tap, then a period per tap."""
    blocks, ky, kx = i.taps
    return accelerator.columns + blocks * ky * kx * i.period + FILL_AND_DRAIN


def load_cycles(i: Load, memory: Memory) -> int:
    """Start to end of a load from an ideal memory."""
    return memory.read_latency + i.beats + 1


def store_cycles(i: Store, memory: Memory) -> int:
    """Start to end of a store to an ideal memory."""
    return i.size[0] * (1 + i.beats) + STORE_PIPELINE + memory.write_latency + 3


def step_cycles(step: Step, accelerator: Accelerator, memory: Memory) -> int:
    """Cycles of a step as the accelerator counts them. Raises MeasureError for programs that wait for each other for ever."""
    return _Timeline(step, accelerator, memory).run()


def engine_cycles(step: Step, accelerator: Accelerator, memory: Memory) -> int:
    """What the busiest engine, or the shared memory, takes if nothing ever waits: below `step_cycles`, and much quicker to compute."""
    loads = [max(load_cycles(i, memory), FETCH) for i in step.loads]
    executes = [max(execute_cycles(i, accelerator), FETCH) for i in step.executes]
    stores = [max(store_cycles(i, memory), FETCH) for i in step.stores]
    beats = sum(i.beats for i in step.loads) + sum(i.beats * i.size[0] for i in step.stores)
    return max(sum(loads), sum(executes), sum(stores), beats * memory.interval if memory.shared else 0)


@dataclass(slots=True)
class _Engine:
    """Where an engine is in its program. due: end of the running instruction, known once the memory has served it."""

    program: tuple[Instruction, ...]
    place: int = 0
    free: int = 0
    fetched: int = FIRST_FETCH
    running: Instruction | None = None


@dataclass(slots=True)
class _Burst:
    """Chunks of a load or store that wait for the shared memory: (address, beats, earliest cycle)."""

    engine: int
    chunks: deque[tuple[int, int, int]]
    tail: int  # cycles from the last beat to the end of the instruction


@dataclass(slots=True)
class _Timeline:
    step: Step
    accelerator: Accelerator
    memory: Memory
    tokens: list[deque[int]] = field(default_factory=list[deque[int]])  # when each semaphore's levels are there, not yet taken
    bursts: dict[bool, _Burst] = field(default_factory=dict[bool, _Burst])  # by direction: reading or not
    free: int = 0  # the shared memory
    reading: bool = True
    page: int = -1
    refresh: int = 0

    def run(self) -> int:
        engines = [_Engine(program) for program in self.step.programs]
        self.tokens = [deque([0] * self.accelerator.buffers if s in _FREE else []) for s in range(8)]
        end = 0
        start = self._earliest(engines)
        while start is not None or self.bursts:
            chunk = self._next_chunk()
            if chunk is not None and (start is None or chunk[0] < start[0]):
                finished = self._serve(*chunk)
                if finished is None:
                    continue
            else:
                assert start is not None
                finished = self._start(*start, engines)
            if finished is not None:
                number, cycle = finished
                engine = engines[number]
                assert engine.running is not None
                for s in engine.running.signal:
                    self.tokens[s].append(cycle + 1)
                engine.running, engine.free = None, cycle + 1
                end = max(end, cycle)
            start = self._earliest(engines)
        if any(e.place < len(e.program) for e in engines):
            raise MeasureError("the accelerator's engines wait for each other for ever; this tiling cannot run")
        return end + 1

    def _earliest(self, engines: list[_Engine]) -> tuple[int, int] | None:
        """(when, engine) of the next instruction to start, of those of which that is known."""
        return min(((cycle, n) for n, e in enumerate(engines) if (cycle := self._ready(e)) is not None), default=None)

    def _ready(self, engine: _Engine) -> int | None:
        """When the engine's next instruction can start; None while that is not known."""
        if engine.running or engine.place == len(engine.program):
            return None
        waits = engine.program[engine.place].wait
        if any(not self.tokens[s] for s in waits):
            return None
        return max(engine.free, engine.fetched, *(self.tokens[s][0] for s in waits), 0)

    def _start(self, cycle: int, number: int, engines: list[_Engine]) -> tuple[int, int] | None:
        engine = engines[number]
        i = engine.program[engine.place]
        for s in i.wait:
            self.tokens[s].popleft()
        engine.place, engine.fetched, engine.running = engine.place + 1, cycle + FETCH, i
        if isinstance(i, Execute):
            return number, cycle + execute_cycles(i, self.accelerator)
        if not self.memory.shared:
            return number, cycle + (load_cycles(i, self.memory) if isinstance(i, Load) else store_cycles(i, self.memory))
        if isinstance(i, Load):
            eligible = cycle + self.memory.read_latency
            self.bursts[True] = _Burst(number, deque(self._chunks(i.address, i.beats, eligible, 0)), 1)
        else:
            chunks: list[tuple[int, int, int]] = []
            for row in range(i.size[0]):
                first = cycle + 1 + row * (1 + i.beats) + STORE_PIPELINE
                chunks += self._chunks(i.address + row * i.pitch, i.beats, first, 1)
            self.bursts[False] = _Burst(number, deque(chunks), self.memory.write_latency + 3)
        return None

    def _chunks(self, address: int, beats: int, first: int, per_beat: int) -> list[tuple[int, int, int]]:
        """The turns that a burst takes; beat k is there at first + k * per_beat."""
        bus, m = self.accelerator.bus, self.memory
        chunks: list[tuple[int, int, int]] = []
        done = 0
        while done < beats:
            here = address + done * bus
            size = min(m.chunk, -(-(m.page_bytes - here % m.page_bytes) // bus), beats - done)
            done += size
            chunks.append((here, size, first + done * per_beat))
        return chunks

    def _next_chunk(self) -> tuple[int, bool] | None:
        """(when, direction) of the next turn."""
        if not self.bursts:
            return None
        when = {d: max(self.free, b.chunks[0][2]) for d, b in self.bursts.items()}
        start = min(when.values())
        ready = [d for d, w in when.items() if w == start]
        return start, (not self.reading) if len(ready) == 2 else ready[0]

    def _serve(self, start: int, direction: bool) -> tuple[int, int] | None:
        m, burst = self.memory, self.bursts[direction]
        address, beats, _ = burst.chunks.popleft()
        page = address // m.page_bytes
        wait = (direction != self.reading) * m.turnaround + (page != self.page) * m.page_cycles
        if start >= self.refresh:
            wait += m.refresh_cycles
            self.refresh = (start // m.refresh_period + 1) * m.refresh_period
        self.free = start + wait + beats * m.interval
        self.reading, self.page = direction, page
        if burst.chunks:
            return None
        del self.bursts[direction]
        return burst.engine, self.free + burst.tail
