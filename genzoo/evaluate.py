"""`python -m genzoo.evaluate`: measures what a trained model is worth; see `genzoo.cli.evaluate_command`."""

import sys

from genzoo.cli.evaluate_command import main

if __name__ == "__main__":
    sys.exit(main())
