# Everything that people and CI do with this tree. "make help" lists it.

STATICCHECK_VERSION   := v0.8.2
GOLANGCI_LINT_VERSION := v2.15.0
FUZZTIME              ?= 60s
HEADS                 ?= 50000000

# Binaries name their commit where git can tell it; where it cannot (an archive, a clone of another user) go would refuse to
# build.
export GOFLAGS := $(strip $(shell go env GOFLAGS) $(shell git rev-parse HEAD >/dev/null 2>&1 || echo -buildvcs=false))

STATICCHECK   := .tools/staticcheck-$(STATICCHECK_VERSION)/staticcheck
GOLANGCI_LINT := .tools/golangci-lint-$(GOLANGCI_LINT_VERSION)/golangci-lint
MODULES       := . tools/peers

.DEFAULT_GOAL := help
.PHONY: simulate simulate-long exam-race bench-idle-programs ktls pgo million bench-peers bench-check bench-million bench-million-guest help run build test check lint bench fuzz fuzz-heads exam clean needs

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## Build and start "ticketgate dev" (ARGS="--port 9000")
	@exec bin/ticketgate dev $(ARGS)

build: ## Build bin/ticketgate
	go build -trimpath -o bin/ticketgate ./cmd/ticketgate

test: needs build ## Run all tests with the race detector, against real servers
	CGO_ENABLED=1 go test -race -timeout 18m ./...
	cd tools/peers && go test ./...

check: lint ## Format, vet, staticcheck, golangci-lint, import directions: what CI runs beside the tests
	go test -count=1 ./tools/layers

lint: $(STATICCHECK) $(GOLANGCI_LINT)
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt -w $$unformatted" >&2; exit 1; fi
	@set -e; for module in $(MODULES); do (cd $$module; set -x; go mod tidy -diff; go vet ./...; $(CURDIR)/$(STATICCHECK) ./...; \
		$(CURDIR)/$(GOLANGCI_LINT) run --config $(CURDIR)/.golangci.yml ./...); done

ktls: ## Show kernel TLS: fails where the kernel has none. bin/secure.test can be taken to one that has (root may need modprobe tls)
	CGO_ENABLED=0 go test -c -o bin/secure.test ./engine/secure
	cd engine/secure && ../../bin/secure.test -ktls

bench: ## Measure, and write bench/RESULTS.md (ARGS="-short -out -" prints a shorter run)
	go run ./bench/cmd $(ARGS)

bench-peers: needs ## Measure next to other servers, and write their part of bench/RESULTS.md (23 minutes; ARGS="-short -only idle -against nginx -out -")
	go run ./bench/cmd -peers $(ARGS)

bench-idle-programs: ## Build bin/idle: what measures idle sockets on a machine without Go, one with TLS in the kernel (bin/idle/cmd -programs bin/idle)
	mkdir -p bin/idle
	CGO_ENABLED=0 go build -o bin/idle/ ./cmd/ticketgate ./bench/cmd
	CGO_ENABLED=0 go build -C tools/peers -o $(CURDIR)/bin/idle/ ./epollaccept
	git rev-parse --short=12 HEAD > bin/idle/commit

bench-check: ## Compare allocations exactly, and ratios within their spread, with what "make bench" recorded (10 minutes)
	go run ./bench/cmd -check $(ARGS)

bench-million: ## Hold 1,000,000 sockets for 10 minutes, pinged every 2 minutes, and write bench/MILLION.md (45 minutes on 2 cores, 12 GiB; SOCKETS, HOLD, PING)
	go run ./bench/cmd -million $(or $(SOCKETS),1000000) -hold $(or $(HOLD),10m) -ping $(or $(PING),2m) $(ARGS)

bench-million-guest: ## Build bin/million: what does that where one process may have the descriptors (bin/million/cmd -programs bin/million -million 1000000 -ping 30m -out million.md)
	mkdir -p bin/million
	CGO_ENABLED=0 go build -o bin/million/ ./cmd/ticketgate ./bench/cmd
	git rev-parse --short=12 HEAD > bin/million/commit

pgo: PROFILES := $(shell mktemp -u)
pgo: ## Measure what builds are optimised for (cmd/ticketgate/default.pgo), after changes of the message path
	mkdir $(PROFILES)
	go build -pgo=off -tags profile -o bin/ticketgate-profile ./cmd/ticketgate
	PGO_PROFILES=$(PROFILES) go run ./bench/cmd -only echo,relay,gate -short -ticketgate bin/ticketgate-profile -out -
	go tool pprof -proto $(PROFILES)/*.pprof > cmd/ticketgate/default.pgo
	rm -r $(PROFILES) bin/ticketgate-profile

fuzz: ## Run every fuzz target for FUZZTIME (60s)
	@set -e; grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n 1 dirname | sort -u | while read -r package; do \
		for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			echo "$$package $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5s $$package; \
		done; \
	done

fuzz-heads: ## Fuzz the accept path against net/http for HEADS executions (50,000,000)
	GOMAXPROCS=1 GOGC=1000 go test -run '^$$' -fuzz '^FuzzAccept$$' -fuzztime $(HEADS)x -fuzzminimizetime 10x -parallel $$(nproc) -timeout 0 ./engine

exam: ## Run the exam's programs (N=18 runs one, ARGS for its flags)
	go run ./tools/exam $(if $(N),-n $(N)) $(ARGS)

simulate: ## Play the admission protocol through 10,000 seeds of crashes, partitions and failovers (SEEDS=, ARGS="-seed 7 -v")
	go run ./tools/simulate -seeds $(or $(SEEDS),10000) $(ARGS)

simulate-long: ## The same for 1,000,000 seeds that "make simulate" does not play (2 hours on 2 cores)
	go run ./tools/simulate -from 1000001 -seeds 1000000 $(ARGS)

exam-race: ## Run it at a tenth of its load, with gateways that the race detector watches; it judges no times and no memory
	go run ./tools/exam -race -size 0.1 -duration 15s $(if $(N),-n $(N)) $(ARGS)

million: ## Show what a garbage collection costs at 1,000,000 sockets, in memory
	go test ./engine -run '^$$' -bench MillionSockets -benchtime 1x

clean: ## Remove what was built
	rm -rf bin .tools

# What tests need beside Go: a Redis, a browser for the demo page, the race detector's C compiler, and what tools/peers compares
# with. Debian starts a server when it is installed, unless policy-rc.d says no: tests start their own.
needs:
	@missing=; PATH=$$PATH:/usr/sbin; \
	command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	command -v chromium >/dev/null || missing="$$missing chromium"; \
	command -v openssl >/dev/null || missing="$$missing openssl"; \
	command -v gcc >/dev/null || missing="$$missing gcc libc6-dev"; \
	command -v node >/dev/null || missing="$$missing nodejs"; \
	command -v npm >/dev/null || missing="$$missing npm"; \
	command -v nginx >/dev/null || missing="$$missing nginx"; \
	command -v haproxy >/dev/null || missing="$$missing haproxy"; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
		echo "make test needs:$$missing. On Debian: sudo apt-get install$$missing" >&2; exit 1; \
	fi; \
	policy=/usr/sbin/policy-rc.d; \
	if [ ! -e $$policy ]; then \
		trap "rm -f $$policy" EXIT; trap 'exit 1' HUP INT TERM; \
		printf '#!/bin/sh\nexit 101\n' > $$policy; chmod 755 $$policy; \
	fi; \
	set -x; apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$missing

$(STATICCHECK):
	GOBIN=$(CURDIR)/$(@D) go install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)

$(GOLANGCI_LINT):
	GOBIN=$(CURDIR)/$(@D) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
