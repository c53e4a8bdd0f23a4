"""The command line, run in this process."""

from click.testing import CliRunner

from keras_musictag.cli import main


def run(*args):
    """What click's runner returns for `keras-musictag ARGS`; an error that the command does not expect is raised."""
    return CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)
