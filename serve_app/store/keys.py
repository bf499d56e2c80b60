"""Projects and their keys: every query over them."""

import time

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from serve_app.ids import new_id
from serve_app.store.tables import ApiKey, Project


def get_project(session: Session, name: str) -> Project | None:
    """Return the project of this name."""
    return session.scalar(select(Project).where(Project.name == name))


def ensure_project(session: Session, name: str) -> Project:
    """Return the project of this name, made when it is missing; several may ask at once."""
    if (found := get_project(session, name)) is not None:
        return found
    try:
        with session.begin_nested():
            project = Project(id=new_id("proj_"), name=name, created_at=int(time.time()))
            session.add(project)
    except IntegrityError:  # another transaction made it in the meantime
        return session.scalars(select(Project).where(Project.name == name)).one()
    return project


def key_by_hash(session: Session, digest: str) -> tuple[ApiKey, Project] | None:
    """Return the key with this hash, also a revoked one, and its project."""
    query = select(ApiKey, Project).join(Project).where(ApiKey.hash == digest)
    return _pair(session.execute(query).one_or_none())


def key_by_id(session: Session, key_id: str, *, lock: bool) -> tuple[ApiKey, Project] | None:
    """Return the key with this id and its project."""
    query = select(ApiKey, Project).join(Project).where(ApiKey.id == key_id)
    return _pair(session.execute(query.with_for_update() if lock else query).one_or_none())


def list_keys(session: Session, project_name: str | None) -> list[tuple[ApiKey, Project]]:
    """Every key, revoked ones too, oldest first; None: of all projects."""
    query = select(ApiKey, Project).join(Project).order_by(ApiKey.created_at, ApiKey.id)
    if project_name is not None:
        query = query.where(Project.name == project_name)
    return [(key, project) for key, project in session.execute(query)]


def _pair(row) -> tuple[ApiKey, Project] | None:
    return None if row is None else (row[0], row[1])
