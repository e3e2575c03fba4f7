"""One broken formula, as data."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A formula of the package with a sign, a constant or a term that is wrong."""

    name: str
    file: str
    """Path below `genzoo`."""
    old: str
    """What is there; it occurs exactly once in the file."""
    new: str
    """What takes its place."""
    tests: tuple[str, ...]
    """The test files, or single tests as pytest names them, that are expected to fail."""
    why: str
    """What is right, and whose formula it is."""

    def applied(self, source: str) -> str:
        """The broken text of the file. Raises `ValueError` where `old` does not occur exactly once."""
        found = source.count(self.old)
        if found != 1:
            raise ValueError(f"{self.name}: {self.old!r} occurs {found} times in genzoo/{self.file}")
        return source.replace(self.old, self.new)
