"""Commands as people run them, in this process."""

from genzoo.__main__ import main


def run(*argv):
    """The exit code of a command, however it ends."""
    try:
        return main([str(a) for a in argv])
    except SystemExit as stop:
        return stop.code
