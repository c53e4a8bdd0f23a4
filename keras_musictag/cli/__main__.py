"""Run the command as `python -m keras_musictag.cli`."""

from . import main

if __name__ == "__main__":
    main()
