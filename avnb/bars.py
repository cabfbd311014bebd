"""Progress bars: widgets in JupyterLab, text everywhere else, papermill included."""

import os
import sys

# Jupyter's server names the session to the kernels that it starts; papermill starts its own.
if "JPY_SESSION_NAME" in os.environ and "ipykernel" in sys.modules:
    from tqdm.notebook import tqdm as tqdm
else:
    from tqdm import tqdm as tqdm  # type: ignore[assignment]
