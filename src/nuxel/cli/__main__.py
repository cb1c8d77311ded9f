"""``python -m nuxel.cli``."""

import sys

from nuxel.cli.main import main

sys.exit(main())
