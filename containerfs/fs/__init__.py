"""The file system: a tree that is kept in line with the server, and what programs do with it.

The kernel's requests come in by `operations`, as numbers and bytes; failures leave by `boundary`.

* The tree: `nodes` and their `inodes`; `tree` holds them by name, `places` makes what stands at a
  path, `objects` says which object of the server a file shows.
* Looking: `namespace` asks for what is too old, `containers` shows the top level, `reconciling`
  a container; `layout` and `names` decide under which names; `browsing` reads directories.
* Open files: `opening`, `reading`, `writing`, `closing`; `spooling` holds what is unsent.
* To the server: `sending` one file, by `delivery`, with `conflicts`, later by `writeback`;
  `recovery` after a crash.
* Names: `making`, `removing`, `renaming` (plans `moves`, has `transfer` send them, ends by
  `committing`); `settling` ends what a crash cut off, `uncertain` what failed and may have
  arrived.
"""
