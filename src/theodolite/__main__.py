"""`python -m theodolite` and the command `theodolite`: signals are handled before anything is loaded that takes a moment."""

from theodolite.records.stopping import STOPPING


def main() -> None:
    """Runs the command line (`theodolite.cli.main`)."""
    STOPPING.handle()
    from theodolite.cli import main as run

    run()


if __name__ == "__main__":
    main()
