"""Captions: names of classes put into templates, texts from a file, and texts as the bytes that networks read.

Class k of a known source has a name ("ankle boot"); a template ("a photo of a {}") makes a caption of it. A folder's
own captions lie beside its images in `captions.jsonl` (one object per line) or `captions.csv` (with a header); both
name the image's file, relative to the folder, and the text:

    {"file": "cats/tom.png", "text": "a cat on a chair"}

An image may have several captions: training draws one of them anew each time.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.core.regular_files import read_regular
from genzoo.core.showable import showable
from genzoo.core.spec import Batch
from genzoo.core.text import TEXT_LENGTH, byte_codes
from genzoo.data.folder import CAPTION_FILES
from genzoo.data.identity import digest_of_parts
from genzoo.data.image_data import ImageData, with_remarks
from genzoo.data.known_data import DIGIT_NAMES
from genzoo.data.listing import told
from genzoo.data.sources import class_names_of
from genzoo.data.split import FolderSplit, LazyImages, Split

MOST_BYTES = 2**30
"""Of a file with captions."""

TEMPLATES = (
    "{}",
    "a {}",
    "a photo of a {}",
    "an image of a {}",
    "a picture of a {}",
    "a small picture of a {}",
    "this is a {}",
)
"""How a class is talked about; `{}` stands for its name. (Radford et al. 2021, "CLIP", section 3.1.4.)"""


def class_names(data: ImageData) -> tuple[str, ...]:
    """The names of the classes of `data`: the known ones, or the names of a folder's sub-folders (`_` as a blank).

    Raises `GenzooError` where there are none.
    """
    if known := class_names_of(data.name):
        return known
    folders = data.class_names
    if not folders:
        raise GenzooError(
            f"{data.name} has no classes with names: give images in class folders, or captions ({CAPTION_FILES[0]})"
        )
    return tuple(str(name).replace("_", " ") for name in folders)


def number_name(k: int) -> str:
    """What class k is called where nobody gave it a name: digit by digit.

    >>> number_name(7), number_name(10)
    ('seven', 'one zero')
    """
    return " ".join(DIGIT_NAMES[int(digit)] for digit in str(k))


def caption(template: str, name: str) -> str:
    """The template with the name in place of `{}`; "a" in front of it becomes "an" where that is easier to say.

    >>> caption("a photo of a {}", "ankle boot")
    'a photo of an ankle boot'
    """
    easier = name[:1].lower() in tuple("aeiou") and (template == "a {}" or template.endswith(" a {}"))
    return template.replace("a {}", "an {}").replace("{}", name) if easier else template.replace("{}", name)


@final
class CaptionedSplit(Split):
    """Another split's images, whose batches hold captions as `cond`: long `[b, length]`, as `byte_codes` makes them.

    `labels` are the other split's. Raises `GenzooError` unless `captions` has one or more texts for each image.
    """

    def __init__(self, split: Split, captions: Sequence[Sequence[str]], length: int = TEXT_LENGTH) -> None:
        counts = [len(texts) for texts in captions]
        if len(counts) != len(split) or 0 in counts:
            raise GenzooError(
                f"every image needs a caption: got {len(counts) - counts.count(0)} for {len(split)}"
            )
        self.split = split
        # codes are at most 256: a quarter of the memory of long
        self._codes = byte_codes([text for texts in captions for text in texts], length).short()
        self._counts = torch.tensor(counts)
        self._starts = self._counts.cumsum(0) - self._counts

    @property
    def images(self) -> Tensor | LazyImages:
        """All images `[n, c, h, w]`."""
        return self.split.images

    @property
    def labels(self) -> Tensor | None:
        """Classes long `[n]`, or None."""
        return self.split.labels

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        """Images and captions at `indices` `[b]`: one caption each, drawn, or the first one without a generator."""
        chosen = self._starts[indices]
        if generator is not None:
            share = torch.rand(len(indices), generator=generator, device=generator.device).to(chosen.device)
            chosen = chosen + (share * self._counts[indices]).long()
        return Batch(self.split.batch(indices, generator).images, self._codes[chosen].long())

    def __len__(self) -> int:
        return len(self.split)


def captioned(data: ImageData, file: str | Path | None = None, length: int = TEXT_LENGTH) -> ImageData:
    """`data` of a folder, with the captions of `file` (None: `captions.jsonl` or `captions.csv` in the folder).

    The protocol tells under "captions" where they come from. Raises `GenzooError` for data of another kind, and where
    the file is missing, cannot be read, or leaves an image without a caption.
    """
    root = data.root
    if root is None:
        raise GenzooError(f"captions from a file go with folder: data, not with {data.name}: use class_names")
    source = Path(file).expanduser() if file is not None else _caption_file(root)
    texts = read_captions(source)
    named = [(name, data.split(name), _files_of(data.split(name), root)) for name in ("train", "val", "test")]
    splits = {
        name: CaptionedSplit(split, _captions_of(files, texts, source.name), length)
        for name, split, files in named
    }
    used = {file for _, _, files in named for file in files}
    digest = digest_of_parts(part for file in sorted(used) for part in (file, *texts[file]))
    about = {**data.protocol, "captions": source.name, "captions_content": digest}
    return with_remarks(replace(data, **splits, protocol=about), _unused(texts, used, root, source.name))


def has_captions(data: ImageData) -> bool:
    """Whether `data` is a folder in which `captioned` finds captions."""
    root = data.root
    return root is not None and any((root / name).exists() for name in CAPTION_FILES)


def read_captions(file: Path) -> dict[str, list[str]]:
    """Image file (as written, with `/`) to its captions, from a `.jsonl` or `.csv` file.

    A comma in a text needs no quotes where the text is the last of two columns. Raises `GenzooError` with the line that
    is wrong.
    """
    if not file.exists():
        raise GenzooError(f"there is no file {file}: captions are read from a .jsonl or .csv file")
    if file.suffix not in (".jsonl", ".csv"):
        raise GenzooError(f"captions are read from a .jsonl or .csv file, got {file.name}")
    found: dict[str, list[str]] = {}
    for number, row in _rows(file):
        name, text = (row.get(key) if isinstance(row, dict) else None for key in ("file", "text"))
        if not isinstance(name, str) or not isinstance(text, str) or not name or not text.strip():
            raise GenzooError(f'{file.name}, line {number}: needs "file" and "text", both of them not empty')
        found.setdefault(Path(name).as_posix(), []).append(text)
    return found


def _rows(file: Path) -> Iterator[tuple[int, Any]]:
    """Lines from 1 on, with what they hold."""
    try:
        lines = io.StringIO(read_regular(file, MOST_BYTES).decode("utf-8-sig"), newline="")
        if file.suffix == ".csv":
            yield from _csv_rows(file, lines)
            return
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, json.loads(line)
    except (ValueError, RecursionError, csv.Error) as error:
        raise GenzooError(f"{file.name} cannot be read: {error}") from error


def _csv_rows(file: Path, lines: io.StringIO) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows under a header. Of the two columns file and text the text takes the rest of its line, commas and all.

    With more columns nobody knows which one a comma belongs to: raises `GenzooError` for a row with too many fields.
    """
    reader = csv.reader(lines)
    header = next(reader, [])
    for row in reader:
        if not row:
            continue
        if len(row) > len(header):
            if header != ["file", "text"]:
                raise GenzooError(
                    f"{file.name}, line {reader.line_num}: has {len(row)} fields where the header has {len(header)}: "
                    "put a text with commas into double quotes"
                )
            row = [row[0], ",".join(row[1:])]
        yield reader.line_num, dict(zip(header, row, strict=False))


def _caption_file(root: Path) -> Path:
    for name in CAPTION_FILES:
        if (root / name).exists():
            return root / name
    raise GenzooError(f"{root} holds no captions: put {' or '.join(CAPTION_FILES)} there")


def _files_of(split: Split, root: Path) -> list[str]:
    """The files of a folder's split as captions name them."""
    assert isinstance(split, FolderSplit)
    return [path.relative_to(root).as_posix() for path in split.paths]


def _unused(texts: dict[str, list[str]], used: set[str], root: Path, source: str) -> list[str]:
    """A remark on captions that belong to no picture that was read."""
    unused = [file for file in texts if file not in used]
    if not unused:
        return []
    return [f"{len(unused)} captions in {source} name no picture that was read: {told(unused)}"]


def _captions_of(files: Sequence[str], texts: dict[str, list[str]], source: str) -> list[list[str]]:
    """The captions of each image of a folder's split."""
    missing = [file for file in files if file not in texts]
    if missing:
        raise GenzooError(
            f"{len(missing)} images have no caption in {source}, such as {showable(missing[0])}: add a line for each"
        )
    return [texts[file] for file in files]
