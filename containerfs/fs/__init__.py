"""The file system: a tree that is kept in line with the server, and what programs do with it.

The kernel's requests come in by `operations`, as numbers and bytes; failures leave by
`kernel.boundary`. Each folder uses only those above it in this list, and a test reads that:

* `names`: under which name each object is shown (`layout`), and how names are spelled.
* `tree`: `nodes` and their `inodes`; `tree` holds them by name, `places` makes what stands at a
  path, `objects` says which object of the server a file shows; `reconciling` brings a container in
  line with a listing.
* `kernel`: handles, the requests' arrival, and the kernel's own caches.
* `outgoing`: `sending` one file, by `delivery`, with `conflicts`, later by `writeback`; of renames,
  what is to be sent (`moves`), what a crash cut off (`settling`), and what failed and may have
  arrived (`uncertain`).
* `listings`: `namespace` asks for what is too old, `browsing` reads directories, `recovery` shows
  and sends what an earlier mount left.
* `files`: `opening`, `reading`, `writing`, `closing`; `spooling` holds what is unsent, `scanning`
  tells `prefetch` what to fetch.
* `entries`: `making`, `removing`, `renaming` (has `transfer` send, ends by `committing`).
"""
