"""The Containers API as seen from here.

`import httpx` brings its command line along, and rich and pygments with it, where these are
installed: a tenth of the time in which a mount starts. It does without where they are not.
"""

import sys

sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # "not installed"
