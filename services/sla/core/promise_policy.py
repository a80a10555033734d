"""What `sla.yaml` says of promises and of risk: the sections `promises` and `at_risk`, as models.

Owns their format and the meaning of every field. Neither is required: by default a promise is told as soon as there
are enough measured waits, and risk is judged by the share of time alone.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

QueueName = Annotated[str, Field(min_length=1, max_length=200)]
Look = Annotated[float, Field(gt=0, lt=1)]


class QueuePromises(BaseModel):
    """What differs for one queue. `is_told: false` measures its waits and its promises, and tells nobody."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    is_told: bool = True


class PromisesModel(BaseModel):
    """How waits become promises.

    `share` of such tickets must have been answered within what is told; never less than `floor_minutes` is told.
    `min_samples` answered tickets of the last `window_weeks` are needed before anything is. The state of the queues and
    the corrections are read every `refresh_seconds`, the waits themselves every `rebuild_seconds`. `queues` says what
    differs for one of them. After hours, `callback_slots` slots of `callback_minutes` are offered (0: none).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float = Field(default=0.9, ge=0.5, le=0.99, examples=[0.9])
    floor_minutes: int = Field(default=5, ge=1, le=240, examples=[5])
    min_samples: int = Field(default=30, ge=10, le=10_000, examples=[30])
    window_weeks: int = Field(default=8, ge=1, le=52, examples=[8])
    refresh_seconds: float = Field(default=60, ge=5, le=3600, examples=[60])
    rebuild_seconds: float = Field(default=3600, ge=60, le=86_400, examples=[3600])
    callback_slots: int = Field(default=3, ge=0, le=20, examples=[3])
    callback_minutes: int = Field(default=30, ge=5, le=480, examples=[30])
    queues: dict[QueueName, QueuePromises] = Field(default={}, max_length=100)

    def is_told(self, queue: str) -> bool:
        """Whether customers of `queue` hear of it."""
        found = self.queues.get(queue)
        return found is None or found.is_told


class AtRiskModel(BaseModel):
    """When a first response is at risk before its share of time is gone (`warn_at`).

    At each of `looks`, shares of the clock's time, the probability that it is answered too late is worked out; from
    `probability` on a warning is told. Without `looks` nobody looks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    probability: float = Field(default=0.5, gt=0, lt=1, examples=[0.5])
    looks: tuple[Look, ...] = Field(default=(), max_length=8, examples=[[0.25, 0.5, 0.65]])

    @field_validator("looks")
    @classmethod
    def _ascending(cls, looks: tuple[float, ...]) -> tuple[float, ...]:
        if list(looks) != sorted(set(looks)):
            raise ValueError("shares of the time, each once, in ascending order")
        return looks
