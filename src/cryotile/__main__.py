"""``python -m cryotile`` is ``cryotile``."""

from cryotile.cli import main

if __name__ == "__main__":
    main()
