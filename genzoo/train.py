"""`python -m genzoo.train`: trains a preset on images; see `genzoo.cli.train_command`."""

import sys

from genzoo.cli.train_command import main

if __name__ == "__main__":
    sys.exit(main())
