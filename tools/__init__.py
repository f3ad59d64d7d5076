"""The operator's command line: dead letters and what the table knows, of a deployed stack or of the sandbox."""

import sys
from pathlib import Path

# The tools read letters and records as the deployed code does. Its packages lie where SAM finds them, in functions/.
sys.path.append(str(Path(__file__).parent.parent / "functions"))
