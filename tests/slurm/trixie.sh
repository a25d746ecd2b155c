#!/usr/bin/env bash
# The tests on a real Slurm with Debian 13's Slurm (24.11) in a tree of its own: make test-slurm24. As root, on Debian or
# Ubuntu; needs mmdebstrap. ROOT keeps the tree (2 GB) between runs. Arguments go to pytest.
set -euo pipefail
[[ $# -gt 0 ]] || set -- tests/slurm -m "not full and not train" --ignore=tests/slurm/test_ray_cluster.py -q
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
root=${ROOT:-/var/tmp/overnight-trixie}
[[ $(id -u) -eq 0 ]] || { echo "test-slurm24: this needs root" >&2; exit 2; }
command -v mmdebstrap >/dev/null || { echo "test-slurm24: apt-get install mmdebstrap" >&2; exit 2; }

if [[ ! -x $root/usr/sbin/slurmctld ]]; then
    # From where this machine gets its own packages.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' | grep -v security | head -n 1)
    packages=slurmctld,slurmd,slurm-client,slurmdbd,munge,mariadb-server,procps,iproute2,hostname,util-linux,strace
    mmdebstrap --variant=apt --include="$packages,python3,python3-venv,bash,git,ca-certificates,openssh-server,rsync" \
        trixie "$root" "$mirror"
fi
mkdir -p "$root/src" "$root/dev/shm" "$root/.before"
# In mount and pid namespaces of their own: whatever is left over ends with them.
exec unshare --mount --pid --fork --mount-proc bash -euc '
    root=$1 here=$2; shift 2
    mount --bind "$root" "$root"
    mount --rbind /dev "$root/dev"; mount -t proc proc "$root/proc"; mount --rbind /sys "$root/sys"
    mount -t tmpfs tmpfs "$root/run"; mkdir -p "$root/run/munge"
    mount --bind "$here" "$root/src"; mount -o remount,bind,ro "$root/src"
    cp --dereference /etc/resolv.conf /etc/hosts "$root/etc/"
    cp --dereference /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/" 2>/dev/null || true # also a site'"'"'s own
    # Not chroot: in one the kernel gives no user namespaces, which the nodes of an ordinary user live in.
    cd "$root"; pivot_root . .before
    exec /usr/bin/env -i PATH=/usr/sbin:/usr/bin HOME=/root PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
        bash -euc "
        umount --lazy /.before
        [ -x /venv/bin/pytest ] || {
            python3 -m venv /venv
            mkdir -p /tmp/build
            cp -r /src/launch /src/jobs /src/data_prep /src/sbatch_templates /src/cluster_profiles /src/pyproject.toml \
                /src/README.md /tmp/build
            /venv/bin/pip install --quiet \"/tmp/build[nemo-run,submitit,data,dev]\"
            /venv/bin/pip uninstall --quiet --yes overnight
        }
        # As an editable installation: a job that submits the next ones has no PYTHONPATH.
        for packages in /venv/lib/python3.*/site-packages; do echo /src >\$packages/overnight.pth; done
        slurmctld -V
        cd /src
        exec env PYTHONPATH=/src PYTHONDONTWRITEBYTECODE=1 /venv/bin/python -m pytest -p no:cacheprovider \"\$@\"
    " pytest "$@"
' overnight "$root" "$here" "$@"
