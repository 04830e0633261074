"""Which operation a method and a path ask for. Ids may hold anything, percent-encoded."""

from dataclasses import dataclass
from urllib.parse import unquote

from containerfs.server.refusals import Refusal

BASE = "v1"

# A path by its words, `*` being an id: what each method does there.
_ROUTES: dict[tuple[str, ...], dict[str, str]] = {
    ("containers",): {"GET": "list_containers", "POST": "create_container"},
    ("containers", "*"): {"GET": "retrieve_container", "DELETE": "delete_container"},
    ("containers", "*", "files"): {"GET": "list_files", "POST": "create_file"},
    ("containers", "*", "files", "*"): {"GET": "retrieve_file", "DELETE": "delete_file"},
    ("containers", "*", "files", "*", "content"): {"GET": "content"},
}
_IDS = (1, 3)  # places of ids in a path


@dataclass(frozen=True, slots=True)
class Route:
    """An operation and the ids it is about."""

    operation: str
    ids: tuple[str, ...]


def split_path(raw_path: bytes) -> tuple[str, ...]:
    """The decoded words between the slashes of a path as it was sent."""
    return tuple(unquote(word) for word in raw_path.decode("latin-1").split("/")[1:])


def find_route(method: str, words: tuple[str, ...], *, path: str) -> Route:
    """The route of a request below the base path.

    Raises:
        Refusal: 404, there is no such path; 405, the path has no such method.
    """
    shape = tuple("*" if place in _IDS else word for place, word in enumerate(words))
    ids = tuple(word for place, word in enumerate(words) if place in _IDS)
    methods = _ROUTES.get(shape)
    if methods is None or not all(ids):
        raise Refusal(404, f"Invalid URL ({method} {path})")
    if method not in methods:
        raise Refusal(
            405,
            f"Not allowed to {method} on {path}.",
            headers={"allow": ", ".join(methods)},
        )
    return Route(methods[method], ids)
