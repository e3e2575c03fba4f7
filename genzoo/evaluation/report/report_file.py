"""The report of a run on disk: `report.json`, a part per question and set of images.

    {"format": 2, "likelihood": {"digits/test@seed=0": {...}}, "quality": {"digits/test@seed=0": {...}}, ...}

Each part has the hash of the weights that it was measured on (`"weights"`). Where other weights lie beside the report
now, the part is out of date: it is not read, and a note says so. Parts of former versions have no hash, and are taken
for parts of the weights that lie there, as they always were. What a training measures quickly at its end does not
replace a part on more images of the same weights. Means of an output distribution are samples of another kind than
draws, and figures of them have a key of their own: "digits/test@seed=0 decoded by the mean".

It is written and read by the types of `genzoo.evaluation.report.schema`. A file may have been edited, cut short or
written by another version: what does not fit a part's type costs that part, and a note says which field it was.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import msgspec

from genzoo.core.checked_json import check_plain, short
from genzoo.core.errors import GenzooError
from genzoo.core.files import keep_aside, remove_leftovers, write_atomically
from genzoo.core.folder_lock import only_writer
from genzoo.core.regular_files import is_regular, read_regular, sha256_of
from genzoo.core.showable import storable
from genzoo.evaluation.report.legacy_report import upgrade
from genzoo.evaluation.report.plain_json import finite, top_level_parts
from genzoo.evaluation.report.sample_schema import DecodingName, decoding_of
from genzoo.evaluation.report.schema import FORMAT, PARTS, Report
from genzoo.training.checkpoint import WEIGHTS

REPORT = "report.json"

DEEPEST = 32
"""Levels of nesting below a part of a report."""

MOST_BYTES = 2**24
"""Of a report: 16 MiB."""


@final
@dataclass(frozen=True)
class StoredReports:
    """What a file holds: parts by question and set of images, as typed objects; `notes` say what could not be read."""

    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    outdated: frozenset[str] = frozenset()
    """Questions whose only answers, on draws where they are about samples, are of other weights."""

    def report(self, test_id: str | None = None, decode: DecodingName = "draw") -> Report:
        """All parts on one set of images: those of `test_id`, and where a question has none the last that it has.

        Of samples those that were decoded by `decode`. What is about no samples is in the report of either.
        """
        found = {}
        for name, by_set in self.parts.items():
            alike = {
                key: part
                for key, part in by_set.items()
                if not hasattr(part, "decode") or part.decode == decode
            }
            if alike:
                own = [key for key in alike if key in (test_id, _key(test_id or "", decode))]
                found[name] = alike[own[0] if own else list(alike)[-1]]
        return Report(test_id or "", **found)

    @property
    def has_means(self) -> bool:
        """Whether means of an output distribution were evaluated."""
        return any(decoding_of(part) == "mean" for by_set in self.parts.values() for part in by_set.values())


# --- reading ---------------------------------------------------------------------------------------------------


def read_report(path: str | Path) -> StoredReports:
    """The report in a run folder `path`, or in a file; empty where there is none.

    Raises `GenzooError` where there is a file that holds no report at all.
    """
    path = Path(path)
    file = path / REPORT if path.is_dir() else path
    if not os.path.lexists(file):
        return StoredReports()
    text = read_regular(file, MOST_BYTES).decode("utf-8-sig", errors="replace")
    return parsed_report(text, str(file), weights_of(path) if path.is_dir() else None)


def weights_of(run: Path) -> str | None:
    """What tells the weights in a run folder from others: the SHA-256 of their file; None where there are none."""
    file = run / WEIGHTS
    try:
        return sha256_of(file) if is_regular(file) else None
    except GenzooError:
        return None


def parsed_report(text: str, name: str, weights: str | None = None) -> StoredReports:
    """As `read_report`, of the text of a file called `name` that lies beside these weights (None: no matter which)."""
    raw, notes = _raw_parts(text, name)
    version = raw.pop("format", 1)
    if version not in (1, FORMAT) or isinstance(version, bool):
        notes.append(f"{name} has format {short(version)}, which this version of genzoo does not know")
    parts: dict[str, dict[str, Any]] = {}
    old: dict[str, list[str]] = {}
    for old_name, by_set in raw.items():
        if not isinstance(by_set, dict):
            notes.append(f"{name}: {short(old_name)} is no part of a report")
            continue
        for key, content in by_set.items():
            if _of_other_weights(content, weights):
                old.setdefault(_with_decoding(old_name, content), []).append(key)
                continue
            try:
                section, own_key, part = _part(old_name, key, content, version)
                parts.setdefault(section, {})[own_key] = part
            except _Unreadable as reason:
                notes.append(f"{name}: {short(old_name)} of {short(key)} is left out: {reason}")
    if old:
        notes.append(
            f"{name}: out of date, since measured on other weights than those that lie there now: "
            f"{short(', '.join(old))}; measure anew with: genzoo evaluate RUN"
        )
    current = {
        name for name, by_set in parts.items() if any(decoding_of(p) == "draw" for p in by_set.values())
    }
    return StoredReports(parts, tuple(notes), frozenset(old) & frozenset(PARTS) - current)


def _of_other_weights(content: Any, weights: str | None) -> bool:
    own = content.get("weights") if isinstance(content, Mapping) else None
    return isinstance(own, str) and weights is not None and own != weights


def _with_decoding(name: str, content: Any) -> str:
    """The name of a part for people, which tells means from draws."""
    return f"{name} of means" if content.get("decode") == "mean" else name


class _Unreadable(Exception):
    """Why a part of a report cannot be used, in one line."""


def _part(name: str, key: str, content: Any, version: Any) -> tuple[str, str, Any]:
    """A part of a report as a typed object, with its name and the set of images."""
    try:
        check_plain({key: content}, DEEPEST)
    except ValueError as error:
        raise _Unreadable(str(error)) from error
    if version == 1:
        try:
            name, content = upgrade(name, key, content)
        except (GenzooError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise _Unreadable(f"this old part has another form ({reason})") from error
    if name not in PARTS:
        raise _Unreadable("this version of genzoo knows no such part")
    try:
        return name, key, msgspec.convert(content, PARTS[name])
    except (msgspec.ValidationError, GenzooError, OverflowError, RecursionError) as error:
        raise _Unreadable(" ".join(str(error).split())) from error


def _raw_parts(text: str, name: str) -> tuple[dict[str, Any], list[str]]:
    """The parts as plain JSON; of a damaged file those that are whole, with a note on each other one."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        return _whole_parts(text, name, error)
    if not isinstance(content, dict):
        raise GenzooError(f"{name} is no report; measure anew with: genzoo evaluate RUN")
    return content, []


def _whole_parts(text: str, name: str, error: Exception) -> tuple[dict[str, Any], list[str]]:
    whole: dict[str, Any] = {}
    notes = []
    for key, part in top_level_parts(text):
        try:
            whole[key] = json.loads(part)
        except (ValueError, RecursionError) as reason:
            notes.append(f"{name}: {short(key)} is left out: it cannot be read as JSON ({short(reason)})")
    if not whole:
        raise GenzooError(
            f"{name} cannot be read as JSON ({short(error)}); measure anew with: genzoo evaluate RUN"
        ) from error
    return whole, notes or [f"{name} is damaged ({short(error)}); what follows the damage is left out"]


# --- writing ---------------------------------------------------------------------------------------------------


def write_report(
    report: Report, path: str | Path, *, must_exist: bool = False, keep_thorough: bool = False
) -> Path:
    """Sets the parts of `report` in the run folder (or file) `path`, keeping what other commands wrote there.

    Writers take turns. A file that is no sound JSON is kept under another name, of which a line on stderr tells.
    With `keep_thorough` parts that were measured on more images of the same weights stay as they are.
    `must_exist` is for the folder of a run, which is not made anew where it was moved or deleted. Raises `GenzooError`
    where it is not there, or the file cannot be written.
    """
    path = Path(path)
    is_file = path.suffix == ".json" and not path.is_dir()
    folder, file = (path.parent, path) if is_file else (path, path / REPORT)
    if must_exist and not folder.is_dir():
        raise GenzooError(f"{folder} is not there; the report was not written")
    with only_writer(folder, f"{folder} is being written to", name=f"{file.name}.lock", wait=True):
        remove_leftovers(folder, [file.name])
        _write(report, file, folder, keep_thorough)
    return file


def _write(report: Report, file: Path, folder: Path, keep_thorough: bool) -> None:
    content = _kept_content(file) if is_regular(file) else {}
    weights = report.weights or weights_of(folder)
    if _is_damaged(file):
        print(f"genzoo: {file} was damaged; it is kept as {keep_aside(file)}", file=sys.stderr)
    for name, part in report.parts():
        before = content.get(name)
        key, decode = _key_of(report, name), decoding_of(part)
        plain = storable(finite(msgspec.to_builtins(part, enc_hook=str)))
        if weights is not None and name != "about":
            plain["weights"] = weights
        if keep_thorough and isinstance(before, dict) and _tells_more(before.get(key), plain):
            continue
        former = report.former_id and _key(report.former_id, decode)
        kept = {k: v for k, v in before.items() if k != former} if isinstance(before, dict) else {}
        content[name] = {**kept, key: plain}
    text = json.dumps({"format": FORMAT, **content}, indent=2, allow_nan=False)
    write_atomically(file, (text + "\n").encode(), inside=folder)


def _tells_more(before: Any, now: Mapping[str, Any]) -> bool:
    """Whether a part of the same weights was measured on more images."""
    if not isinstance(before, Mapping) or not now.get("weights") or before.get("weights") != now["weights"]:
        return False
    return any(_count(before, name) > _count(now, name) for name in ("images", "samples", "references"))


def _count(part: Mapping[str, Any], name: str) -> int:
    """Of images; 0 where a part has none of that name."""
    found = part.get(name)
    numbers = found if isinstance(found, (list, tuple)) else [found]
    return sum(n for n in numbers if isinstance(n, int) and not isinstance(n, bool))


def _is_damaged(file: Path) -> bool:
    """Whether there is a file that is no JSON object, so that a part of it may be lost when it is written anew."""
    if not os.path.lexists(file):
        return False
    try:
        return not isinstance(json.loads(read_regular(file)), dict)
    except (GenzooError, ValueError, RecursionError):
        return True


def _key_of(report: Report, name: str) -> str:
    """OODData are told apart, too, by what they are."""
    if name == "ood" and report.ood:
        return f"{report.test_id} against {report.ood.against}"
    return _key(report.test_id, decoding_of(getattr(report, name)))


def _key(test_id: str, decode: DecodingName) -> str:
    """What is about means stands beside what is about draws, so that neither replaces the other."""
    return test_id if decode == "draw" else f"{test_id} decoded by the {decode}"


def _kept_content(file: Path) -> dict[str, Any]:
    """What the file holds as plain JSON of this format; what cannot be read stays as it is, as far as JSON allows."""
    try:
        raw, _ = _raw_parts(read_regular(file, MOST_BYTES).decode("utf-8-sig", errors="replace"), str(file))
        raw = finite(raw)
    except (OSError, GenzooError, RecursionError):  # there is none yet, or none that anybody could read
        raw = {}
    if raw.pop("format", 1) != 1:
        return raw
    content: dict[str, Any] = {}
    for old_name, by_set in raw.items():
        for name, key, plain in _upgraded(old_name, by_set):
            if key is None:
                content[name] = plain
            else:
                content.setdefault(name, {})[key] = plain
    return content


def _upgraded(old_name: str, by_set: Any) -> Iterator[tuple[str, str | None, Any]]:
    if not isinstance(by_set, dict):
        yield old_name, None, by_set
        return
    for key, content in by_set.items():
        try:
            name, own_key, part = _part(old_name, key, content, 1)
            yield name, own_key, msgspec.to_builtins(part)
        except _Unreadable:
            yield old_name, key, content
