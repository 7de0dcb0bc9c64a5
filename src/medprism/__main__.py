"""`python -m medprism` is `medprism`."""

import sys

from medprism.cli import main

sys.exit(main())
