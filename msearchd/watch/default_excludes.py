"""The built-in exclude list, in gitignore syntax. Add lines freely; raise VERSION when a line's meaning changes."""

from __future__ import annotations

from typing import Final

VERSION: Final = 1

#: Keys and secrets. No `!pattern` brings them back; only `use_default_excludes = false` does.
SECRETS: Final = """\
.ssh/
.gnupg/
.aws/
.azure/
.kube/
.docker/
.password-store/
.config/gcloud/
.config/gh/
.local/share/keyrings/
.gnome2/keyrings/
Library/Keychains/
.netrc
.pgpass
.git-credentials
id_rsa
id_dsa
id_ecdsa
id_ed25519
*.kdbx
*.kdb
*.keychain-db
*.pfx
*.p12
"""

DEFAULTS: Final = """\
# version control
.git/
.hg/
.svn/
.bzr/
CVS/
# packages, environments and build trees of programmers
node_modules/
bower_components/
__pycache__/
.venv/
venv/
.tox/
.nox/
.mypy_cache/
.ruff_cache/
.pytest_cache/
.eggs/
*.egg-info/
site-packages/
.gradle/
.cargo/
.rustup/
.npm/
.yarn/
.pnpm-store/
.m2/
.terraform/
DerivedData/
*.pyc
*.pyo
*.o
*.obj
*.class
*.so
*.a
*.dll
*.dylib
# caches and the desktop's own
.cache/
Caches/
.thumbnails/
.Trash/
.Trashes/
.Trash-*/
.local/share/Trash/
$RECYCLE.BIN/
System Volume Information/
lost+found/
.Spotlight-V100/
.fseventsd/
.TemporaryItems/
.DocumentRevisions-V100/
.snapshots/
.zfs/
.stversions/
.stfolder/
@eaDir/
#recycle/
.DS_Store
Thumbs.db
desktop.ini
.directory
# virtual machines and disk images
*.vmdk
*.vdi
*.vhd
*.vhdx
*.qcow2
*.vmem
*.vmsn
*.vbox-prev
*.hdd
*.sparsebundle/
*.sparseimage
# databases at work: their files are never at rest
*.db-journal
*.sqlite-journal
*.sqlite3-journal
*.db-wal
*.db-shm
*.sqlite-wal
*.sqlite-shm
*.sqlite3-wal
*.sqlite3-shm
*.ldb
msearchd.db
"""
