# Isthmus. `make demo` shows it, `make test` proves it.
SHELL := /bin/bash
.DELETE_ON_ERROR:

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X isthmus.dev/isthmus/internal/version.stamp=$(VERSION)
# The tests that move packets or run an Envoy, and their packages. They wait more than they compute, so two packages run
# at a time, except those in which no call may fail. test/e2e marks the tests that may run in parallel.
E2EFILES = $(shell grep -rlE --include='*_test.go' '^//go:build e2e|envoyproc[.]Locate' .)
E2E = $(sort $(dir $(E2EFILES)))
ALONE := ./internal/node/ ./test/e2e/
E2EFLAGS = -tags e2e -count=1 -timeout 15m -v -run '^($(E2ETESTS))$$'
E2ETESTS = $(shell grep -hoE '^func (Test|Fuzz)[A-Za-z0-9_]+' $(E2EFILES) | cut -d' ' -f2 | paste -sd'|')
# Runs a command with a temporary folder of its own, which is removed afterwards, or by the next run.
SCRATCH := tools/scratch.sh
# Everything is compiled with the same flags, statically and reproducibly, so that each step finds in the build cache
# what the others have compiled. Only the race tests have a build of their own.
export CGO_ENABLED := 0
export GOFLAGS := $(strip $(filter-out -trimpath -buildvcs=false,$(GOFLAGS)) -trimpath -buildvcs=false)
# go vet runs on its own in `check`. Nobody debugs what is linked here.
GOTEST := go test -vet=off -ldflags=-w
# SQLite (C translated to Go) is not instrumented for races: that would be most of the work.
RACE := -race -gcflags=modernc.org/...=-race=false
# Packages that start goroutines, in their code or in their tests, or run tests at the same time; and the rest that has tests.
RACY = $(shell grep -rlE --include='*.go' '^\s*go |\.(Parallel|Go)\b|statetest\.Run' . | grep -v _e2e_test | xargs -n1 dirname | sort -u)
CALM = $(filter-out $(RACY),$(shell find . -name '*_test.go' | xargs -n1 dirname | sort -u))

.PHONY: help envoy build packages demo tour soak check test bench bench-matrix generate fuzz clean preflight-go preflight-root preflight-tests preflight-soak

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: preflight-go preflight-root build ## two federated meshes on this machine, until Ctrl-C
	@ISTHMUS_ENVOY=$$(tools/envoy.sh) && export ISTHMUS_ENVOY && exec bin/isthmus demo

tour: preflight-go preflight-root build ## the demo, driven: each promise tried, exit 0 only if all held
	@ISTHMUS_ENVOY=$$(tools/envoy.sh) && export ISTHMUS_ENVOY && exec bin/isthmus demo --tour

envoy: ## fetch stock Envoy 1.40 into .cache unless ISTHMUS_ENVOY or PATH has one
	@tools/envoy.sh

build: preflight-go ## bin/isthmus and bin/isthmus-samples
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/ ./cmd/isthmus ./samples/cmd/isthmus-samples

packages: preflight-go ## Debian packages in dist: isthmus, and isthmus-envoy with the stock Envoy
	@tools/packages.sh dist

check: preflight-go preflight-tests ## format, vet, staticcheck, unit tests with -race, generated files, layers
	@stale=$$(go tool gofumpt -l .); [[ -z $$stale ]] || \
		{ echo "isthmus: not formatted (run 'go tool gofumpt -w .'):" >&2; echo "$$stale" >&2; exit 1; }
	go vet -tags e2e ./...
	go tool staticcheck -tags e2e ./...
	tools/generated.sh
	$(SCRATCH) $(GOTEST) $(CALM)
	CGO_ENABLED=1 $(SCRATCH) $(GOTEST) $(RACE) $(RACY)

test: preflight-go preflight-root preflight-tests check build ## check, then real Envoys in real network namespaces, the tour included
	@echo "test: what moves packets or asks an Envoy: $(E2E)"; ISTHMUS_ENVOY=$$(tools/envoy.sh) && export ISTHMUS_ENVOY && \
	$(SCRATCH) $(GOTEST) $(E2EFLAGS) -p 2 $(filter-out $(ALONE),$(E2E)) && \
	$(SCRATCH) $(GOTEST) $(E2EFLAGS) -p 1 $(ALONE)

soak: preflight-go preflight-root preflight-soak build ## the demo under load and disturbed, for MINUTES (default 10)
	@ISTHMUS_ENVOY=$$(tools/envoy.sh) && export ISTHMUS_ENVOY && exec bin/isthmus demo --soak $(or $(MINUTES),10)m

bench: preflight-go build ## 1000 services, 200 proxies: one table and one line of JSON
	go run ./bench/controlplane

bench-matrix: preflight-go build ## the same for nine sizes, up to 5000 services and 1000 proxies
	go run ./bench/controlplane -matrix

generate: preflight-go ## deep copies and CRD schemas from the Go types
	go generate ./api/... ./internal/...

fuzz: preflight-go ## every fuzz target for SECONDS (default 20)
	@set -e; export ISTHMUS_ENVOY=$$(tools/envoy.sh); grep -rl --include='*_test.go' '^func Fuzz' internal | xargs -r -n1 dirname | sort -u | while read -r dir; do \
		for f in $$(grep -ho '^func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go | cut -c6-); do \
			go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(or $(SECONDS),20)s -fuzzminimizetime 10x "./$$dir"; done; done

clean: ## remove what was built, fetched, and left by tests that were killed
	rm -rf bin dist .cache .run
	@tools/scratch.sh

preflight-go:
	@tools/preflight.sh go

preflight-root:
	@MAKECMDGOALS="$(MAKECMDGOALS)" tools/preflight.sh root

preflight-tests preflight-soak: preflight-%:
	@tools/preflight.sh $*
