#!/usr/bin/env bash
# A tour of containerfs on a temporary mount: every step is shown, run, and must succeed.
# Expects `containerfs` and a python with the openai package in PATH; ./run demo sees to that.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
work=$(realpath -- "$(mktemp -d)")
server=

clean_up() {
    local code=$?
    trap - EXIT INT TERM
    cd /
    if grep -qF -- " $work/mnt " /proc/self/mountinfo; then
        containerfs umount "$work/mnt" || fusermount3 -uz "$work/mnt" || true
    fi
    if [[ $server ]]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf --one-file-system -- "$work"
    ((code == 0)) || printf '\nThe demo failed (exit code %s).\n' "$code" >&2
    exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '\n# %s\n' "$*"; }

# step COMMAND: show it, then run it.
step() {
    printf '$ %s\n' "$1"
    eval "$1"
}

# Nothing of the user's own settings, so that the tour is the same everywhere.
unset "${!CONTAINERFS_@}" "${!OPENAI_@}" NOTIFY_SOCKET
export HOME=$work/home XDG_CONFIG_HOME=$work/config XDG_CACHE_HOME=$work/cache NO_PROXY='*'
mkdir -- "$work/home" "$work/mnt"
cp -r -- "$here/../containerfs" "$work/source"
find "$work/source" -name __pycache__ -prune -exec rm -r {} +
cd -- "$work"

say "A server: the embedded Containers API. The mount and the openai package below both talk to it."
printf 'demo\n' >key && chmod 600 key
mkfifo said
containerfs serve --data data --port 0 --api-key-file key >said &
server=$!
read -r line <said || { say "The server did not start."; exit 1; }
export OPENAI_API_KEY=demo OPENAI_BASE_URL=${line#listening on }
echo "OPENAI_BASE_URL=$OPENAI_BASE_URL"

say "Mount it."
step 'containerfs mount -d mnt'

say "A container is a directory."
step 'mkdir mnt/demo'
step 'getfattr --only-values -n user.containerfs.id mnt/demo; echo'
step 'containerfs containers list --format jsonl'

say "Copy a source tree in, and look at it."
step 'cp -r source mnt/demo/'
step 'ls mnt/demo/source'
step 'find mnt/demo -type f | wc -l'
step 'head -n 3 mnt/demo/source/errors.py'
step 'grep -rl "^import trio" mnt/demo'
step 'diff -r source mnt/demo/source'

say "Edit, append, rename, delete: the same to the copy, to compare with."
for tree in mnt/demo/source source; do
    step "sed -i 's/EIO/E_I_O/' $tree/errors.py"
    step "echo '# the end' >> $tree/errors.py"
    step "mv $tree/errors.py $tree/failures.py"
    step "mv $tree/server $tree/embedded_server"
    step "rm $tree/options.py"
done
step 'tail -n 1 mnt/demo/source/failures.py'
step 'diff -r source mnt/demo/source'
step 'sync mnt/demo'

say "Read everything back with the official openai package."
step 'python "$here/demo_read_back.py" demo back'
step 'diff -r source back/source'

say "Unmount, and mount again: everything is still there."
step 'containerfs umount mnt'
step '[ -z "$(ls mnt)" ]'
step 'containerfs mount -d mnt'
step 'diff -r source mnt/demo/source'
step 'rm -r mnt/demo'
step '[ -z "$(ls mnt)" ]'
step 'containerfs umount mnt'

say "That was the tour. ./run mount gives you a mount of your own."
