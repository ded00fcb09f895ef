"""`python -m src fit --config configs/lenet5.yaml`: see `src.cli.main`."""

import sys

try:
    from src.cli.main import main  # imports take five seconds, in which Ctrl-C can come

    code = main()
except KeyboardInterrupt:
    print("Stopped.", file=sys.stderr)
    code = 130
sys.exit(code)
