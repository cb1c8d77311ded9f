"""``python -m nuxel``."""

import sys

from nuxel.cli.main import main

sys.exit(main())
