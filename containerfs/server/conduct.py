"""How a server behaves right now; the admin routes change it while it runs."""

from dataclasses import dataclass, field

from containerfs.server.behaviours import Behaviours
from containerfs.server.faults import Faults


@dataclass(slots=True, kw_only=True)
class Conduct:
    """The behaviours and the faults at work."""

    behaviours: Behaviours = field(default_factory=Behaviours)
    faults: Faults = field(default_factory=Faults)
