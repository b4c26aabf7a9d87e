"""``python -m attnlib.cli`` is ``attnlib``."""

import sys

from attnlib.cli import main

sys.exit(main())
