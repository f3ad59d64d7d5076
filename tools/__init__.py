"""The operator's command line, for a deployed stack or for the sandbox."""

import sys
from pathlib import Path

# The tools read letters and records with the packages of the functions, which are in functions/.
sys.path.append(str(Path(__file__).parent.parent / "functions"))
