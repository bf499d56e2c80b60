"""A model's folder as one stream: a tar of its weights, configuration, tokenizer and card.

Of a checkpoint's folder nothing else leaves: no optimizer state, no manifest. The stream is written
as it is read, and its length is known before it begins.
"""

import tarfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

CHUNK_BYTES = 1 << 20
SENT = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json",
    "adapter_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "chat_template.*", "README.md", "LICENSE*",
)  # fmt: skip
NOT_SENT = ("optimizer*",)


def model_files(folder: Path) -> list[Path]:
    """The files of a model, by name; empty when the folder is gone or holds none."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and _fits(path.name, SENT) and not _fits(path.name, NOT_SENT)
    )


def archive(files: Sequence[Path]) -> tuple[int, Iterator[bytes]]:
    """(length in bytes, the bytes of a tar) of these files, without their folders."""
    sizes = [(path, path.stat().st_size) for path in files]
    heads = [_head(path, size) for path, size in sizes]
    length = sum(len(head) for head in heads) + 2 * tarfile.BLOCKSIZE
    length += sum(size + _padding(size) for _, size in sizes)
    return length, _stream(sizes, heads)


def _stream(sizes: Sequence[tuple[Path, int]], heads: Sequence[bytes]) -> Iterator[bytes]:
    for (path, size), head in zip(sizes, heads, strict=True):
        yield head
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
        yield bytes(_padding(size))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _head(path: Path, size: int) -> bytes:
    """A member's header. The owner and the time are the server's, and stay there."""
    member = tarfile.TarInfo(path.name)
    member.size, member.mode = size, 0o644
    return member.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> int:
    return -size % tarfile.BLOCKSIZE


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
