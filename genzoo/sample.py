"""`python -m genzoo.sample`: draws images from a trained model; see `genzoo.cli.sample_command`."""

import sys

from genzoo.cli.sample_command import main

if __name__ == "__main__":
    sys.exit(main())
