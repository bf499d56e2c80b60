"""The tables. Times are Unix seconds. `seq` columns give every list its order: ids are random."""

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, LargeBinary, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

BigId = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts only INTEGER keys by itself


class Base(DeclarativeBase):
    """Root of the tables; `Base.metadata` is what the migrations reach."""

    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON, int: BigInteger}  # noqa: RUF012


class Project(Base):
    """A tenant: it sees only its own rows."""

    __tablename__ = "projects"
    id: Mapped[str] = mapped_column(primary_key=True)  # "proj_..."
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[int]


class ApiKey(Base):
    """A key's hash. The key itself was shown once."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True)  # "key_..."
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    name: Mapped[str]
    hash: Mapped[str] = mapped_column(unique=True)  # SHA-256 of the key, which is 256 random bits
    prefix: Mapped[str]  # its first characters, to tell keys apart
    created_at: Mapped[int]
    revoked_at: Mapped[int | None]


class Secret(Base):
    """A project's secret, encrypted by the service's own key."""

    __tablename__ = "secrets"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    ciphertext: Mapped[bytes] = mapped_column(LargeBinary)
    updated_at: Mapped[int]


class StoredFile(Base):
    """An uploaded or produced file; its bytes lie in the files' folder under its id."""

    __tablename__ = "files"
    seq: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)  # "file-..."
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    filename: Mapped[str]
    purpose: Mapped[str]
    num_bytes: Mapped[int]
    sha256: Mapped[str]
    created_at: Mapped[int]
    expires_at: Mapped[int | None]
    deleted_at: Mapped[int | None]
    __table_args__ = (Index("ix_files_project_seq", "project_id", "seq"),)


class Upload(Base):
    """A file that arrives in parts."""

    __tablename__ = "uploads"
    id: Mapped[str] = mapped_column(primary_key=True)  # "upload_..."
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    filename: Mapped[str]
    purpose: Mapped[str]
    num_bytes: Mapped[int]
    status: Mapped[str]  # pending, completed, cancelled; past `expires_at` pending means expired
    created_at: Mapped[int]
    expires_at: Mapped[int]
    file_expires_after_s: Mapped[int | None]  # of the file that it becomes
    file_id: Mapped[str | None]


class UploadPart(Base):
    """One part; its bytes lie in the files' folder under its id."""

    __tablename__ = "upload_parts"
    id: Mapped[str] = mapped_column(primary_key=True)  # "part_..."
    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id"), index=True)
    num_bytes: Mapped[int]
    created_at: Mapped[int]


class Job(Base):
    """A fine-tuning job, as its owner asked for it and as it stands."""

    __tablename__ = "jobs"
    seq: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)  # "ftjob-..."
    project_id: Mapped[str | None] = mapped_column(
        ForeignKey("projects.id")
    )  # None: submitted to Ray
    status: Mapped[str]  # a JobStatus
    requested: Mapped[str | None]  # "pause" or "cancel" while a running attempt is being stopped
    stage: Mapped[str | None]  # sft, srl, rlvr, evaluate
    request: Mapped[dict[str, Any]]  # the validated body of the create call
    spec: Mapped[dict[str, Any] | None]  # the complete train.spec.JobSpec, once prepared
    out: Mapped[str]  # folder of checkpoints, events and report
    model: Mapped[str]
    training_file: Mapped[str | None]
    validation_file: Mapped[str | None]
    fine_tuned_model: Mapped[str | None]
    result_files: Mapped[list[Any]]
    job_metadata: Mapped[dict[str, Any]]
    seed: Mapped[int]
    error: Mapped[dict[str, Any] | None]  # {"code", "message", "param"}
    metrics: Mapped[dict[str, Any] | None]  # of the newest step; the report's rows at the end
    steps_done: Mapped[int]  # distinct units of work done: optimizer steps and evaluated policies
    steps_planned: Mapped[int]  # 0 until prepared
    trained_tokens: Mapped[int]
    next_event_seq: Mapped[int]
    log_position: Mapped[dict[str, Any]]  # how far the driver's event log has been taken in
    created_at: Mapped[int]
    started_at: Mapped[int | None]
    finished_at: Mapped[int | None]
    __table_args__ = (
        Index("ix_jobs_project_seq", "project_id", "seq"),
        Index("ix_jobs_status", "status"),
    )


class Attempt(Base):
    """One launch of a job as a Ray job, written before Ray is asked for it."""

    __tablename__ = "attempts"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)  # from 1
    submission_id: Mapped[str] = mapped_column(unique=True)  # "<job id>-<number>"
    status: Mapped[str]  # launching, running, succeeded, failed, stopped, lost
    reason: Mapped[str | None]  # why it ended, and what was decided
    steps_done_at_start: Mapped[int]  # an attempt that got further resets the retry budget
    created_at: Mapped[int]
    ended_at: Mapped[int | None]


class Event(Base):
    """A job's event. `seq` has no gaps; `key` makes a step that is redone replace its event."""

    __tablename__ = "events"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # from 1
    id: Mapped[str] = mapped_column(unique=True)  # "ftevent-..."
    key: Mapped[str]
    created_at: Mapped[int]
    level: Mapped[str]
    type: Mapped[str]  # message or metrics
    message: Mapped[str]
    data: Mapped[dict[str, Any]]
    __table_args__ = (UniqueConstraint("job_id", "key"),)


class JobCheckpoint(Base):
    """A committed checkpoint that is a usable model."""

    __tablename__ = "checkpoints"
    id: Mapped[str] = mapped_column(primary_key=True)  # "ftckpt_..."
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    step_number: Mapped[int]  # over the whole job, from 1
    stage: Mapped[str]
    stage_step: Mapped[int]
    model: Mapped[str]  # the name that answers on the chat endpoint
    path: Mapped[str]
    metrics: Mapped[dict[str, Any]]
    created_at: Mapped[int]
    pruned_at: Mapped[int | None]  # its files were given up for a better one
    __table_args__ = (UniqueConstraint("job_id", "step_number"),)


class Model(Base):
    """A model trained here, by the name that clients use. Base models stand in the settings."""

    __tablename__ = "models"
    name: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str | None] = mapped_column(ForeignKey("projects.id"), index=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    kind: Mapped[str]  # fine_tuned or checkpoint
    path: Mapped[str]  # a Hugging Face folder
    created_at: Mapped[int]
    deleted_at: Mapped[int | None]


class Idempotency(Base):
    """What a create call with a key, or a client's retry of one, was answered with."""

    __tablename__ = "idempotency"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    body_hash: Mapped[str]
    job_id: Mapped[str]
    created_at: Mapped[int]
