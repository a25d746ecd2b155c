#!/usr/bin/env bash
# The tests on a real Slurm with Debian 13's Slurm (24.11) in a tree of its own: make test-slurm24. As root, on Debian or
# Ubuntu; needs mmdebstrap. ROOT keeps the tree (2 GB) between runs. Arguments go to pytest.
# The Python is that of .venv, seen in the tree, too, if it is no part of the machine's /usr (pyenv, conda). Else it is the
# tree's own 3.13 with all packages but torch (5 GB), and the tests with torchrun and TRL are skipped.
set -euo pipefail
[[ $# -gt 0 ]] || set -- tests/slurm tests/sites -m "not full" -q
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
root=${ROOT:-/var/tmp/overnight-trixie}
[[ $(id -u) -eq 0 ]] || { echo "test-slurm24: this needs root" >&2; exit 2; }
command -v mmdebstrap >/dev/null || { echo "test-slurm24: apt-get install mmdebstrap" >&2; exit 2; }

packages=(
    slurmctld slurmd slurm-client slurmdbd munge mariadb-server procps iproute2 hostname util-linux strace
    python3 python3-venv bash git ca-certificates openssh-server openssh-client rsync
    gcc libc6-dev libslurm-dev environment-modules
)
if [[ ! -x $root/usr/sbin/slurmctld ]]; then
    # From where this machine gets its own packages.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' | grep -v security | head -n 1)
    mmdebstrap --variant=apt --include="${packages[*]}" trixie "$root" "$mirror"
fi
python=/venv/bin/python seen=("$here")
if [[ -x $here/.venv/bin/pytest ]]; then
    base=$("$here/.venv/bin/python" -c "import sys; print(sys.base_prefix)")
    if [[ $base != /usr ]]; then
        python=$here/.venv/bin/python seen+=("$base")
    fi
fi
echo "test-slurm24: $python"
mkdir -p "$root/dev/shm" "$root/.before" "${seen[@]/#/$root}"
# In mount and pid namespaces of their own: whatever is left over ends with them.
exec unshare --mount --pid --fork --mount-proc bash -euc '
    root=$1 here=$2 python=$3 packages=$4 seen=$5; shift 5
    mount --bind "$root" "$root"
    mount --rbind /dev "$root/dev"; mount -t proc proc "$root/proc"; mount --rbind /sys "$root/sys"
    mount -t tmpfs tmpfs "$root/run"; mkdir -p "$root/run/munge"
    for directory in $seen; do
        mount --bind "$directory" "$root$directory"; mount -o remount,bind,ro "$root$directory"
    done
    cp --dereference /etc/resolv.conf /etc/hosts "$root/etc/"
    cp --dereference /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/" 2>/dev/null || true # also a site'"'"'s own
    # Not chroot: in one the kernel gives no user namespaces, which the nodes of an ordinary user live in.
    cd "$root"; pivot_root . .before
    exec /usr/bin/env -i PATH=/usr/sbin:/usr/bin HOME=/root PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
        DEBIAN_FRONTEND=noninteractive bash -euc "
        umount --lazy /.before
        cd $here
        # A tree of an earlier run may lack some.
        dpkg-query --show $packages >/dev/null 2>&1 || {
            apt-get update
            apt-get install --yes --no-install-recommends $packages
        }
        [ -x $python ] || {
            python3 -m venv /venv
            mkdir -p /tmp/build
            cp -r launch jobs data_prep sbatch_templates cluster_profiles pyproject.toml README.md /tmp/build
            /venv/bin/pip install --quiet \"/tmp/build[nemo-run,submitit,data,dev]\"
            /venv/bin/pip uninstall --quiet --yes overnight
        }
        # As an editable installation, which .venv is: a job that submits the next ones has no PYTHONPATH.
        for site in /venv/lib/python3.*/site-packages; do [ ! -d \$site ] || echo $here >\$site/overnight.pth; done
        slurmctld -V
        exec env PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1 $python -m pytest -p no:cacheprovider \"\$@\"
    " pytest "$@"
' overnight "$root" "$here" "$python" "${packages[*]}" "${seen[*]}" "$@"
