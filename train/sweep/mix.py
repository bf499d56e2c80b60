"""A mix of data: training rows drawn from several files, each with its share."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt

from train.spec import SpecError


class SourceSpec(BaseModel):
    """A file of rows and its share in the job as it stands."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    path: Path
    share: NonNegativeFloat = 1.0  # shares are divided by their sum


class MixSpec(BaseModel):
    """Where training rows come from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_rows: PositiveInt  # of the file that is drawn
    sources: Annotated[dict[str, SourceSpec], Field(min_length=2)]

    def below(self, folder: Path) -> "MixSpec":
        """The same mix, its paths starting at `folder`."""
        sources = {
            name: source.model_copy(update={"path": (folder / source.path).resolve()})
            for name, source in self.sources.items()
        }
        return self.model_copy(update={"sources": sources})

    def rows_of(self, name: str) -> list[str]:
        """A source's lines. Raises SpecError for one that cannot be read."""
        path = self.sources[name].path
        try:
            rows = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            why = error.strerror
        except UnicodeDecodeError as error:
            why = str(error)
        else:
            return [row for row in rows if row.strip()]
        raise SpecError(f"mix.sources.{name}: {path} cannot be read: {why}")

    def check(self, every: Sequence[dict[str, float]]) -> None:
        """Read each source once: it has rows where some of these shares ask for one.

        Raises SpecError.
        """
        asked = [counts(shares, self.num_rows) for shares in every]
        for name, source in self.sources.items():
            if not self.rows_of(name) and any(number[name] for number in asked):
                raise SpecError(f"mix.sources.{name}: {source.path} has no row; remove the source")


def counts(shares: dict[str, float], num_rows: int) -> dict[str, int]:
    """Rows from each source, by largest remainder; they add up to `num_rows`. Raises SpecError."""
    total = sum(shares.values())
    if total <= 0:
        raise SpecError(f"mix: the shares {shares} add up to {total}; raise one above 0")
    exact = {name: share / total * num_rows for name, share in shares.items()}
    found = {name: int(value) for name, value in exact.items()}
    left = num_rows - sum(found.values())
    for name in sorted(exact, key=lambda n: found[n] - exact[n])[:left]:
        found[name] += 1
    return found


def draw(mix: MixSpec, shares: dict[str, float], seed: int) -> str:
    """The mixed file's text. A source that has fewer rows than it is to give repeats them.

    The sources are as `MixSpec.check` found them. Raises SpecError for one that cannot be read.
    """
    lines = []
    for name, count in counts(shares, mix.num_rows).items():
        rows = mix.rows_of(name)
        random.Random(f"{seed} {name}").shuffle(rows)
        lines += [rows[i % len(rows)] for i in range(count)]
    random.Random(seed).shuffle(lines)
    return "".join(line + "\n" for line in lines)
