"""`python -m tciafs` is the `tciafs` command."""

from tciafs.cli import main

if __name__ == "__main__":
    main()
