"""`python -m genzoo.compare`: tells which of several models is best; see `genzoo.cli.compare_command`."""

import sys

from genzoo.cli.compare_command import main

if __name__ == "__main__":
    sys.exit(main())
