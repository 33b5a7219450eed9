#!/usr/bin/env bash
# Builds the Debian packages into a folder (default dist): isthmus, and isthmus-envoy with the stock Envoy.
# usage: packages.sh [FOLDER [PACKAGE...]]
# The same commit gives the same bytes, whoever builds it, wherever and whenever.
#   VERSION            of isthmus; default: from the tag or the number of commits
#   ARCH               amd64 or arm64; default: this machine's
#   SOURCE_DATE_EPOCH  the time in the packages; default: that of the commit
#   COMPRESS           xz (default), gzip, zstd or none
set -euo pipefail
cd "$(dirname "$0")/.."

names=("${@:2}")
((${#names[@]})) || names=(isthmus isthmus-envoy)
command -v dpkg-deb >/dev/null || { echo "isthmus: packages are built by dpkg-deb: use Debian or Ubuntu, or install dpkg." >&2; exit 1; }
out=$(mkdir -p "${1:-dist}" && cd "${1:-dist}" && pwd)
native=$(go env GOHOSTARCH)
arch=${ARCH:-$native}
envoy_version=1.40.0
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

fail() {
	echo "isthmus: $*" >&2
	exit 1
}

[[ $arch == amd64 || $arch == arm64 ]] || fail "ARCH=$arch: Envoy is there for amd64 and arm64 only."

# version prints one that Debian takes: v1.2.3 is 1.2.3, five commits later 1.2.3+5.g0123abc; without a tag they are counted from the first.
version() {
	local text
	text=$(git describe --tags --long --dirty=+dirty 2>/dev/null) ||
		text=v0.0.0-$(git rev-list --count HEAD)-g$(git describe --always --dirty=+dirty)
	sed -E 's/^v//; s/-0-g[0-9a-f]+(\+dirty)?$/\1/; s/-([0-9]+)-g/+\1.g/; s/-/~/g' <<<"$text"
}
version=${VERSION:-$(version)}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

build() { # ARCH FILE
	CGO_ENABLED=0 GOARCH=$1 GOFLAGS=-trimpath go build -buildvcs=false \
		-ldflags "-s -w -X isthmus.dev/isthmus/internal/version.stamp=$version" -o "$2" ./cmd/isthmus
}

# pack ROOT PACKAGE VERSION: one package from a folder that holds its files and DEBIAN/control.
pack() {
	local file=$out/${2}_${3}_$arch.deb
	printf 'Package: %s\nVersion: %s\nArchitecture: %s\nInstalled-Size: %s\n' \
		"$2" "$3" "$arch" "$(du -sk --apparent-size --exclude=DEBIAN "$1" | cut -f1)" | cat - "$1/DEBIAN/control" >"$work/control"
	install -m 644 "$work/control" "$1/DEBIAN/control"
	find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	rm -f "$out/${2}_"*"_$arch.deb" # of an earlier version
	dpkg-deb --root-owner-group -Z"${COMPRESS:-xz}" --build "$1" "$file" >/dev/null
	echo "$file"
}

build_isthmus() {
	local root=$work/isthmus doc=$work/isthmus/usr/share/doc/isthmus bin=$work/host/isthmus f
	install -d -m 755 "$root/DEBIAN" "$doc/kinds" "$doc/examples"
	build "$arch" "$work/isthmus.bin"
	install -D -m 755 "$work/isthmus.bin" "$root/usr/bin/isthmus"
	if [[ $arch == "$native" ]]; then bin=$root/usr/bin/isthmus; else build "$native" "$bin"; fi

	install -D -m 644 -t "$root/usr/lib/systemd/system" packaging/systemd/*.service
	install -D -m 644 packaging/sysusers.conf "$root/usr/lib/sysusers.d/isthmus.conf"
	install -D -m 644 packaging/tmpfiles.conf "$root/usr/lib/tmpfiles.d/isthmus.conf"
	install -d -m 755 "$root/usr/share/"{man/man1,bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d}
	gzip -9n <packaging/isthmus.1 >"$root/usr/share/man/man1/isthmus.1.gz"
	"$bin" completion bash >"$root/usr/share/bash-completion/completions/isthmus"
	"$bin" completion zsh >"$root/usr/share/zsh/vendor-completions/_isthmus"
	"$bin" completion fish >"$root/usr/share/fish/vendor_completions.d/isthmus.fish"
	install -m 644 README.md LICENSE docs/*.md packaging/copyright "$doc"
	install -m 644 docs/kinds/* "$doc/kinds"
	install -m 644 packaging/examples/* "$doc/examples"

	for f in postinst prerm postrm; do install -m 755 packaging/debian/$f "$root/DEBIAN/$f"; done
	cat >"$root/DEBIAN/control" <<-'CONTROL'
		Maintainer: The Isthmus authors <isthmus@isthmus.dev>
		Section: net
		Priority: optional
		Depends: systemd
		Recommends: isthmus-envoy, iproute2, nftables
		Homepage: https://isthmus.dev
		Description: zero-trust service mesh with federation, on stock Envoy
		 Control plane, agent, gateway and command line in one binary, and hardened
		 systemd units for the first three. Nothing starts before it is configured.
	CONTROL
	find "$root" -type f -path '*/usr/share/*' -exec chmod 644 {} +
	pack "$root" isthmus "$version"
}

build_isthmus-envoy() {
	local root=$work/envoy binary=${ISTHMUS_ENVOY:-}
	if [[ $arch == "$native" ]]; then binary=$(tools/envoy.sh); fi
	if [[ -z $binary ]]; then
		echo "isthmus: isthmus-envoy for $arch is left out: build it on such a machine, or name an Envoy for it in ISTHMUS_ENVOY." >&2
		return
	fi
	install -d -m 755 "$root/DEBIAN"
	install -D -m 755 "$binary" "$root/usr/lib/isthmus/envoy"
	install -D -m 644 packaging/copyright-envoy "$root/usr/share/doc/isthmus-envoy/copyright"
	cat >"$root/DEBIAN/control" <<-'CONTROL'
		Maintainer: The Isthmus authors <isthmus@isthmus.dev>
		Section: net
		Priority: optional
		Depends: libc6 (>= 2.31)
		Homepage: https://www.envoyproxy.io
		Description: stock Envoy for the agents of isthmus
		 The Envoy that Isthmus is made for, unchanged. Hosts with an agent or a gateway
		 need it; a control plane does not.
	CONTROL
	pack "$root" isthmus-envoy "$envoy_version"
}

umask 022
for name in "${names[@]}"; do "build_$name"; done
