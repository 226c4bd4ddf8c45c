"""`python -m guardian` is the console script."""

from guardian.cli import main

if __name__ == "__main__":
    main()
