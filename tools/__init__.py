"""The operator's command line, for a deployed stack or the sandbox."""

import sys
from pathlib import Path

# The tools read letters and records with the code of the functions, whose packages are in functions/.
sys.path.append(str(Path(__file__).parent.parent / "functions"))
