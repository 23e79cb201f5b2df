"""``python -m lampbench``."""

from lampbench.cli import main

if __name__ == "__main__":
    main()
