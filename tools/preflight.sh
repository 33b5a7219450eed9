#!/usr/bin/env bash
# Says in one sentence what this machine lacks, or installs it. Arguments: go, root, tests, soak.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
	echo "isthmus: $*" >&2
	exit 1
}

check_go() {
	local want have
	want=$(awk '$1 == "go" {print $2; exit}' go.mod)
	command -v go >/dev/null || fail "Go ${want%.*} or newer is needed and there is no 'go' in PATH: install it from https://go.dev/dl/ and add its bin folder to PATH."
	have=$(go env GOVERSION 2>/dev/null) || have=$(cd / && go version | awk '{print $3}') # an old Go cannot read our go.mod, a new one fetches what it lacks
	[[ $(printf '%s\n' "$want" "${have#go}" | sort -V | head -n 1) == "$want" ]] ||
		fail "Go ${want%.*} or newer is needed and this is ${have#go}: install it from https://go.dev/dl/."
}

check_root() {
	[[ $(id -u) == 0 ]] || fail "network namespaces and nftables need root: run 'sudo env PATH=\$PATH make ${MAKECMDGOALS:-demo}'."
	unshare --net true 2>/dev/null || fail "this root may not make network namespaces (a container without CAP_SYS_ADMIN?): run on a machine or in a container started with --privileged."
}

# What the tests need, by the program that is looked for: they compare capture rules with what nft prints, call with
# curl, boot hosts of their own with systemd, resolve names and call as programs in several languages do, and look for
# races, which takes a C compiler. The servers of PostgreSQL are not in PATH.
languages=(python3:python3 node:nodejs javac:default-jdk-headless musl-gcc:musl-tools)
programs=(nft:nftables curl:curl ip:iproute2 systemctl:systemd "${languages[@]}")

check_tests() {
	local lacks=()
	command -v gcc >/dev/null || command -v clang >/dev/null || lacks=(gcc libc6-dev)
	compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || command -v postgres >/dev/null || lacks+=(postgresql)
	install "make test" "${programs[@]}"
}

# The soak has customers in these languages.
check_soak() {
	local lacks=()
	install "make soak" "${languages[@]}"
}

# install what $1 needs, by program:package, where the program is lacking; lacks has packages that are lacking already.
install() {
	local who=$1 p
	shift
	for p in "$@"; do command -v "${p%%:*}" >/dev/null || lacks+=("${p#*:}"); done
	((${#lacks[@]})) || return 0
	if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
		echo "isthmus: $who needs ${lacks[*]}, installing them with apt-get" >&2
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${lacks[@]}"; } >/dev/null && return 0
	fi
	fail "$who needs ${lacks[*]}: run 'apt-get install ${lacks[*]}'."
}

for need in "$@"; do "check_$need"; done
