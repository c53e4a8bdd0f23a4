"""`python -m keras_musictag.cli`: the command, without an entry point."""

from . import main

if __name__ == "__main__":
    main()
