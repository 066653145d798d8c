# The commands of this project; `make help` lists them.

GO ?= go
# Nothing but the module proxy's sources, and no other toolchain than the one
# that is installed.
export GOTOOLCHAIN ?= local

.DEFAULT_GOAL := help

help: ## List the commands.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

build: ## Build bin/mamlog.
	$(GO) build -o bin/mamlog ./cmd/mamlog

run: build ## Build, and serve on loopback with two demo accounts; the store is ./data.
	bin/mamlog serve --demo

test: test-deps lint ## Install what the tests need (as root), and run all checks and tests.
	@if command -v $$($(GO) env CC) >/dev/null; then race=-race; \
	elif [ -n "$$CI" ]; then echo "no C compiler, which the race detector needs" >&2; exit 1; \
	else echo "skipped: the race detector, which needs a C compiler" >&2; fi; \
	skips=$$(mktemp); trap 'rm -f "$$skips"' EXIT; \
	MAMLOG_SKIPS=$$skips $(GO) test $$race -timeout 18m ./... ; result=$$?; \
	cat "$$skips"; exit $$result

nightly: test-deps ## Run the long forms of the tests that have one, and print their figures (as root, some 70 minutes, of which MAMLOG_SOAK_MINUTES can shorten the soak of 60).
	@figures=$$(mktemp); trap 'rm -f "$$figures"' EXIT; \
	MAMLOG_NIGHTLY=1 MAMLOG_FIGURES=$$figures $(GO) test -timeout 180m ./... ; result=$$?; \
	sort "$$figures"; exit $$result

test-servers: ## Start every server that the benchmarks compare with, PostgreSQL included (as root).
	xargs apt-get install -y --no-install-recommends <integrations/peers/packages.txt
	$(GO) test -tags servers -timeout 20m ./integrations/peers ./bench

test-newer: ## Run integrations with Prosody 13 and newer ejabberds, of Debian 13 and its backports (as root, about 10 minutes).
	bash integrations/newer.sh trixie trixie-backports

test-deps: ## Install the Debian packages that the tests need, or say which are missing.
	@bash cmd/mamlog/conformance/testdata/install.sh

lint: ## gofmt, go vet and staticcheck.
	@unformatted=$$(gofmt -l . ); if [ -n "$$unformatted" ]; then echo "not formatted:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

fuzz: ## Fuzz every decoder, FUZZTIME each (default 1m).
	@bash bench/fuzz.sh $(or $(FUZZTIME),1m)

vuln: ## Look for known vulnerabilities with govulncheck (asks vuln.go.dev, so CI, which can't reach it, doesn't run it).
	$(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0 ./...

bench: ## Measure everything against the bare engine, Prosody and ejabberd, and rewrite bench/RESULTS.md (as root, under an hour).
	xargs apt-get install -y --no-install-recommends <integrations/peers/packages.txt
	$(GO) run ./cmd/mamlog-bench all --out bench

bench-attach: ## Measure Prosody and ejabberd with mamlog as their archive, against their own.
	$(GO) run ./cmd/mamlog-bench attach

bench-quick: ## Print the ratios to the bare engine, and fail if one is short of its goal (under 3 minutes).
	$(GO) run ./cmd/mamlog-bench quick

generate: ## Make the Go code of the protobuf schemas anew (needs protoc).
	$(GO) build -o bin/ google.golang.org/protobuf/cmd/protoc-gen-go connectrpc.com/connect/cmd/protoc-gen-connect-go
	PATH="$(CURDIR)/bin:$$PATH" protoc --go_out=. --go_opt=module=mamlog --connect-go_out=. --connect-go_opt=module=mamlog log/event.proto admin/v1/admin.proto

clean: ## Delete what was built; the demo's store in ./data stays.
	rm -rf bin

.PHONY: help build run test nightly test-servers test-newer test-deps lint fuzz vuln bench bench-attach bench-quick generate clean
