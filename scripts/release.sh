#!/usr/bin/env bash
# Builds the archive of a release and its checksum. docs/releasing.md says when.
#
# usage: scripts/release.sh [--check]
#
# --check only compares the tag, Cargo.toml and CHANGELOG.md, and builds nothing. The archive holds
# the binary, the licences, the changelog, config/ and deploy/. Files go to target/release-files/.
set -euo pipefail
cd "$(dirname "$0")/.."

refuse() {
  echo "not released: $*" >&2
  exit 1
}

[[ $# -eq 0 || $1 == --check ]] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
[[ -z $(git status --porcelain) ]] || refuse "there are uncommitted changes: commit or remove them"
git tag --points-at HEAD | grep -Fxq "v$version" ||
  refuse "HEAD has no tag v$version, which Cargo.toml names: git tag --sign v$version"
grep -q "^## $version, 20" CHANGELOG.md ||
  refuse "CHANGELOG.md has no section that begins with \"## $version, \" and a date"
[[ ${1:-} != --check ]] || exit 0

target=$(rustc --version --verbose | sed -n 's/^host: //p')
name=makegood-$version-$target
files=target/release-files
cargo build --locked --release --bin makegood
rm -rf "${files:?}/$name"
mkdir -p "$files/$name"
cp -R target/release/makegood LICENSE-APACHE LICENSE-MIT CHANGELOG.md README.md config deploy \
  "$files/$name/"
tar --create --gzip --file "$files/$name.tar.gz" --directory "$files" \
  --owner 0 --group 0 --sort name --mtime "@$(git log -1 --format=%ct)" "$name"
rm -r "${files:?}/$name"
(cd "$files" && sha256sum "makegood-$version-"*.tar.gz >SHA256SUMS && cat SHA256SUMS)
