"""`python -m engine`: the same as the command `streamforge`."""

from engine.runtime.cli import main

if __name__ == "__main__":
    main()
