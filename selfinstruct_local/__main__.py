"""`python -m selfinstruct_local`: same as the command `selfinstruct`."""

from selfinstruct_local.cli import main

if __name__ == "__main__":
    main()
