"""`python -m src fit --config configs/lenet5.yaml`: see `src.cli`."""

import sys

from src.cli.main import main

sys.exit(main())
