"`python -m robust_smooth`: the command `robust-smooth`, of this very Python."
import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
