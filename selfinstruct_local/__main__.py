"""`python -m selfinstruct_local`, the same as the command `selfinstruct`."""

from selfinstruct_local.cli import main

if __name__ == "__main__":
    main()
