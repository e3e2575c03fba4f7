"""The console script: `genzoo train|sample|evaluate|compare|list`; see `genzoo.cli.dispatch`."""

import sys

from genzoo.cli.dispatch import main

if __name__ == "__main__":
    sys.exit(main())
