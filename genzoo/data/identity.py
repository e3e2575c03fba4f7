"""What data are, whatever they are called and wherever they lie: digests of their content.

Every source records under "content" a digest of each split's images. Two data sets are the same where these are; the
names of folders and files, working directories and spellings do not matter. Runs of earlier versions recorded no
content: theirs is compared by what they recorded, an id made of file names and sizes (`former_test_id` today).
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from genzoo.data.split import Split

SPLITS = ("train", "val", "test")
DIGITS = 16
"""Of a digest, in base 16, that are kept."""

_STRIDE = 256  # streamed images that are read at a time
_PLACES = frozenset({
    "name", "arguments", "remarks", "former_test_id", "content", "test_id", "classes", "captions", "skipped_bad_images",
})  # fmt: skip
"""What a description of data says besides what they are, or what is compared on its own."""


def digest_of_parts(parts: Iterable[str]) -> str:
    """Of texts in their order.

    >>> digest_of_parts(["a", "b"]) == digest_of_parts(["ab"])
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:{part};".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:DIGITS]


def tensor_digest(values: Tensor) -> str:
    """Of a tensor's type, shape and values."""
    digest = hashlib.sha256(f"{values.dtype} {tuple(values.shape)} ".encode())
    digest.update(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:DIGITS]


def images_digest(split: "Split") -> str:
    """Of the images of a split: what its source says of them, else of their pixels, read in turn where they stream."""
    known = getattr(split, "content", "")
    if known:
        return known
    images = split.images
    if isinstance(images, Tensor):
        return tensor_digest(images)
    pieces = (slice(start, start + _STRIDE) for start in range(0, len(images), _STRIDE))
    return digest_of_parts(tensor_digest(images[piece]) for piece in pieces)


def content_of(splits: Sequence["Split"]) -> dict[str, str]:
    """What the protocol of train, val and test records under "content"."""
    found = {name: images_digest(split) for name, split in zip(SPLITS, splits, strict=True)}
    labels = [split.labels for split in splits]
    known = [of_split for of_split in labels if of_split is not None]
    if len(known) < len(labels):
        return found
    return {**found, "labels": digest_of_parts(map(tensor_digest, known))}


def extended(test_id: str, what: str) -> str:
    """A test set's id that also says `what`.

    >>> extended("digits/test@seed=0", "input=mask"), extended("mnist/test", "input=mask")
    ('digits/test@seed=0,input=mask', 'mnist/test@input=mask')
    """
    return f"{test_id}{',' if '@' in test_id else '@'}{what}"


def vouched(test_id: str, test: "Split", known: str) -> str:
    """The id of the test set of a named source: its name says what it is, unless the images are not the known ones."""
    found = images_digest(test)
    return test_id if found == known else extended(test_id, f"images={found}")


def split_id(protocol: Mapping[str, Any], name: str, split: str) -> str:
    """What calls a split of the data with this protocol in reports: figures can be compared where it is the same."""
    test_id = str(protocol.get("test_id", f"{name}/test"))
    if split == "test":
        return test_id
    content = protocol.get("content")
    if not isinstance(content, Mapping) or f"images={content.get('test')}" not in test_id:
        return f"{name}/{split}"
    own = test_id.replace(f"images={content['test']}", f"images={content.get(split)}")
    inputs = protocol.get("input")
    of_inputs = inputs.get("content") if isinstance(inputs, Mapping) else None
    if isinstance(of_inputs, Mapping):
        own = own.replace(str(of_inputs.get("test")), str(of_inputs.get(split)))
    return own.replace("/test@", f"/{split}@", 1)


# --- comparing -------------------------------------------------------------------------------------------------


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Why the data with the protocol `now` are not those with the protocol `before`; None where they are.

    Names, places and remarks may differ. Where `before` tells no content, what it tells instead must agree.

    >>> difference({"content": {"train": "a"}, "name": "folder:x"}, {"content": {"train": "a"}, "name": "folder:y"})
    >>> difference({"content": {"train": "a"}}, {"content": {"train": "b"}})
    'the train images have changed (their digest was a, is b)'
    """
    known, found = before.get("content"), now.get("content")
    if isinstance(known, Mapping) and isinstance(found, Mapping):
        for key in sorted({*known, *found}, key=_order):
            if known.get(key) != found.get(key):
                what = "classes of the images" if key == "labels" else f"{key} images"
                return f"the {what} have changed (their digest was {known.get(key)}, is {found.get(key)})"
    else:
        old, new = _old_id(before.get("test_id")), _old_id(now.get("former_test_id", now.get("test_id")))
        if old != new:
            return f"the test set was {old}, is {new}"
        if before.get("classes", now.get("classes")) != now.get("classes"):
            return f"the classes were {before.get('classes')}, are {now.get('classes')}"
    return _other_difference(_identity(before), _identity(now))


def _order(key: str) -> tuple[int, str]:
    return (SPLITS.index(key) if key in SPLITS else len(SPLITS)), key


def _old_id(test_id: Any) -> str:
    """An id of former versions without the names of folders: what counts is behind the "@"."""
    text = re.sub(r"^folder:.*?/test@", "folder/test@", str(test_id), flags=re.DOTALL)
    return re.sub(r"input=folder:.*$", "input=folder", text, flags=re.DOTALL)


def _identity(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """What else a protocol says of what data are: sizes, seeds, inputs by their content, the weights of an encoder."""
    own = {key: value for key, value in protocol.items() if key not in _PLACES}
    for key, places in (("input", ("cond",)), ("encoder", ("run",))):
        if isinstance(own.get(key), Mapping):
            kept = {k: v for k, v in own[key].items() if k not in places}
            named = str(own[key].get("cond", ""))
            own[key] = {**kept, "kind": named.partition(":")[0]} if key == "input" else kept
    if isinstance(own.get("of"), Mapping):
        own["of"] = _identity(own["of"])
    return own


def _other_difference(before: Any, now: Any, name: str = "its data") -> str | None:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in before:  # what only newer versions record is no difference
            found = _other_difference(before[key], now.get(key), f"{name}: {key}")
            if found:
                return found
        extra = [key for key in ("input", "encoder") if key in now and key not in before]
        return f"{name}: {extra[0]} is new" if extra else None
    # as JSON has it: a run's protocol was read from there
    was, found = (list(value) if isinstance(value, tuple) else value for value in (before, now))
    return None if was == found else f"{name} was {before}, is {now}"


def same_pictures(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool | None:
    """Whether two protocols are about the same images in the same splits; None where one of them does not tell."""
    known, found = before.get("content"), now.get("content")
    if not isinstance(known, Mapping) or not isinstance(found, Mapping):
        return None
    return all(known.get(split) == found.get(split) for split in SPLITS)
