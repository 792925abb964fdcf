"""``python -m tds2el``."""

import sys

from tds2el.cli.main import main

sys.exit(main())
