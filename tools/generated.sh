#!/usr/bin/env bash
# Fails when a generated file differs from what its source would generate, and leaves the tree as it was.
set -euo pipefail
cd "$(dirname "$0")/.."

mapfile -t files < <(grep -rlE --include='*.go' --include='*.yaml' '^(// Code generated|# Code generated|    controller-gen.kubebuilder.io/version)' api internal | sort)
before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
tar cf "$before/files.tar" "${files[@]}"
sums() { sha256sum "${files[@]}" 2>/dev/null; }
old=$(sums)
go generate ./api/... ./internal/...
new=$(sums)
tar xf "$before/files.tar"
if [[ $old != "$new" ]]; then
	diff <(echo "$old") <(echo "$new") | awk '/^>/ {print "stale: " $3}' >&2
	echo "isthmus: generated files are out of date: run 'make generate' and commit what it changes." >&2
	exit 1
fi
