"""`python -m resnetcore` is the command `resnetcore`."""

import sys

from .cli import main

sys.exit(main())
