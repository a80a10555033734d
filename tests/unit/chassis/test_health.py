"""Health: live means that the loops turn, ready that they get somewhere; each problem is said in a few words."""

import json
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

import chassis.health
from chassis.batch import Task, TaskState
from chassis.health import LOOP_SECONDS, STUCK_SECONDS, Health


class FakeConsumer:
    last_poll = 100.0
    is_broker_gone = False

    async def topics(self) -> set[str]:
        """Answer as a broker does, or not."""
        if self.is_broker_gone:
            raise KafkaError("away")
        return {"messages"}


class FakeStage:
    name = "sla"


class FakeWorker:
    """What `Health` looks at."""

    def __init__(self) -> None:
        self.stage = FakeStage()
        self.last_turn = 100.0
        self.consumer: FakeConsumer | None = FakeConsumer()
        self.incomplete: dict[int, list[str]] = {}
        self.behind = 0
        self.tasks = {0: self.task(0), 1: self.task(1)}

    @staticmethod
    def task(number: int) -> Task[Any]:
        task: Task[Any] = Task(number, 1, (TopicPartition("tickets", number),), TaskState.OWNED)
        task.position.offsets = {"tickets": 5}
        return task

    def lag(self) -> int | None:
        return self.behind


class Now:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Now:
    one = Now()
    monkeypatch.setattr(chassis.health, "monotonic", one)
    return one


@pytest.fixture
def worker() -> FakeWorker:
    return FakeWorker()


@pytest.fixture
def health(now: Now, worker: FakeWorker) -> Health:
    made = Health("sla")
    made.add_worker(worker)  # type: ignore[arg-type]
    return made


async def test_all_is_well_while_the_loops_turn_and_the_tasks_are_owned(health: Health) -> None:
    assert health.dead() == {}
    assert await health.unready() == {}


async def test_a_loop_that_does_not_turn_is_dead_by_name(
    health: Health, now: Now, worker: FakeWorker
) -> None:
    now.seconds = worker.last_turn = 100.0 + LOOP_SECONDS
    assert health.dead() == {}
    now.seconds = 101.0 + LOOP_SECONDS
    worker.last_turn = now.seconds
    assert health.dead() == {"sla poll": "has not turned for 31 s"}
    assert "sla poll" in await health.unready()


async def test_a_worker_that_has_not_joined_yet_is_alive_and_not_ready(
    health: Health, now: Now, worker: FakeWorker
) -> None:
    worker.consumer = None
    now.seconds = worker.last_turn = 500.0
    assert health.dead() == {}
    assert await health.unready() == {"sla": "has not joined its group yet"}


async def test_a_process_that_waits_for_its_database_lives_and_says_so(health: Health) -> None:
    health.database_wait = "does not answer yet"
    assert health.dead() == {}
    assert await health.unready() == {"database": "does not answer yet"}


async def test_other_loops_are_watched_too(health: Health, now: Now) -> None:
    health.add_turn("numberer", lambda: 0.0)
    assert health.dead() == {"numberer": "has not turned for 100 s"}


@pytest.mark.parametrize("state", [TaskState.ACQUIRING, TaskState.LOST])
async def test_a_task_without_its_lease_is_not_ready(
    state: TaskState, health: Health, worker: FakeWorker
) -> None:
    worker.tasks[1].state = state
    assert await health.unready() == {"sla": "tasks [1] have no lease yet"}
    assert health.dead() == {}


async def test_a_task_at_a_gap_is_not_ready_and_says_where_to_look(
    health: Health, worker: FakeWorker
) -> None:
    worker.tasks[0].state = TaskState.HALTED
    assert "tasks [0] stand at a gap" in (await health.unready())["sla"]


async def test_a_number_that_lacks_topics_is_not_ready(health: Health, worker: FakeWorker) -> None:
    worker.incomplete = {2: ["tickets"]}
    assert await health.unready() == {"sla": "tasks [2] lack topics"}


async def test_standing_still_is_a_problem_only_with_work_to_do(
    health: Health, now: Now, worker: FakeWorker
) -> None:
    async def later(seconds: float) -> dict[str, str]:
        now.seconds += seconds
        worker.last_turn = now.seconds
        assert worker.consumer is not None
        worker.consumer.last_poll = now.seconds
        return await health.unready()

    assert await later(0) == {}
    assert await later(STUCK_SECONDS + 1) == {}, "nothing to do"
    worker.behind = 7
    assert await later(STUCK_SECONDS) == {}
    assert await later(1) == {"sla": "7 records behind and not moving"}
    worker.tasks[0].position.offsets["tickets"] = 6
    assert await later(0) == {}, "it moves again"


async def test_a_check_of_the_service_makes_it_unready(health: Health) -> None:
    said: list[str | None] = ["the mailbox does not answer"]

    async def check() -> str | None:
        return said[0]

    health.add_check("mailbox", check)
    assert await health.unready() == {"mailbox": "the mailbox does not answer"}
    said[0] = None
    assert await health.unready() == {}


async def ask(health: Health, path: str) -> tuple[int, bytes]:
    answers: list[Any] = []

    async def send(message: Any) -> None:
        answers.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    await health({"type": "http", "path": path}, receive, send)
    return answers[0]["status"], answers[1]["body"]


async def test_the_pages_answer_as_probes_want_it(health: Health, worker: FakeWorker) -> None:
    status, body = await ask(health, "/health/ready")
    assert (status, json.loads(body)["status"]) == (200, "ok")
    worker.tasks[0].state = TaskState.HALTED
    status, body = await ask(health, "/health/ready")
    assert status == 503
    assert json.loads(body)["problems"].keys() == {"sla"}
    assert (await ask(health, "/health/live"))[0] == 200
    assert (await ask(health, "/nowhere"))[0] == 404
    status, body = await ask(health, "/metrics")
    assert status == 200
    assert b"signalbox_ready 0.0" in body


async def test_a_broker_that_is_gone_makes_it_unready_though_nothing_lags(
    health: Health, worker: FakeWorker
) -> None:
    assert worker.consumer is not None
    worker.consumer.is_broker_gone = True
    assert await health.unready() == {"broker": "does not answer (KafkaError)"}
    assert health.dead() == {}
