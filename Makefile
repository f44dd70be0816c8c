# Sallyport. `make` alone prints the targets.

GO        ?= go
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
COMMIT    ?= $(shell git rev-parse HEAD 2>/dev/null)
DATE      ?= $(shell git log -1 --format=%cI 2>/dev/null)
LDFLAGS   := -s -w -X main.release=$(VERSION) -X main.commit=$(COMMIT) -X main.date=$(DATE)
FUZZTIME  ?= 5m
BENCHTIME ?= 1s
RUNS      ?= 5
# Measuring begins when the server has settled on the processors it uses, which takes 5 s.
BENCH      = -runs $(RUNS) -ramp 10ms -warm 6s -duration 10s
PLATFORMS ?= linux/amd64 linux/arm64
ARGS      ?=
# The files of the end-to-end tests, and what they hold, as a pattern for go test -run.
E2E_FILES  = $(wildcard gateway/gateway*_test.go gateway/e2e*_test.go gateway/browser*_test.go)
E2E        = $(shell sed -n 's/^func \(Test[A-Za-z0-9_]*\)(t \*testing.T).*/\1/p' $(E2E_FILES) /dev/null | paste -sd'|')

# The tests whose numbers the race detector is too slow for: it runs them with fewer.
FULL_SIZE  = $(shell sed -n 's/^func \(Test[A-Za-z0-9_]*\)(t \*testing.T).*/\1/p' sfu/scale_test.go /dev/null | paste -sd'|')

# Only the race detector needs C.
export CGO_ENABLED = 0
RACE = CGO_ENABLED=1 $(GO) test -race

.DEFAULT_GOAL := help
.PHONY: help build run test check e2e natlab portable bench bench-sfu bench-seed bench-big bench-turn bench-turn-packets bench-turn-calls bench-proxy profile figures fuzz load release clean

help: ## print this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/sallyport and bin/sallyload
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/sallyport ./cmd/sallyload

run: build ## build, and run the demo: https://localhost:10443 (flags: make run ARGS='-port 11443')
	bin/sallyport demo $(ARGS)

# The end-to-end tests measure media in real time: they get the machine to
# themselves, after everything else.
test: ## install what the tests need, then run all of them: unit, race, end to end, browser
	@.ci/tools
	$(RACE) -p 2 -timeout 15m $$($(GO) list ./... | grep -v '/gateway$$')
	@test -n '$(FULL_SIZE)' || { echo 'no tests in sfu/scale_test.go'; exit 1; }
	$(GO) test -count 1 -timeout 5m -run '^($(FULL_SIZE))$$' ./sfu
	$(GO) test -count 1 -timeout 5m -run '^TestReloadTouchesNothing$$' ./gateway
	$(RACE) -p 1 -timeout 30m ./gateway
	@$(MAKE) --no-print-directory portable
	@.ci/tools -report

# The build tag goes to the binaries that the tests build too, and so does -race
# to the one of the conformance suite, which looks for races in the log.
portable: ## the media sockets without recvmmsg and sendmmsg: conformance, a call of Chromium
	GOFLAGS='$(GOFLAGS) -tags=portable -race' CGO_ENABLED=1 $(GO) test -p 1 -timeout 10m ./sfu/internal/batch ./sfu/conformance
	GOFLAGS='$(GOFLAGS) -tags=portable' $(RACE) -timeout 5m -run '^TestBrowser$$/^(path_udp|screen)$$' ./gateway

check: ## formatting, vet, staticcheck, the walls between packages, go.mod
	@bad=$$(find . -name '*.go' -not -path '*/node_modules/*' -print0 | xargs -0 gofmt -l); \
		if [ -n "$$bad" ]; then echo "not formatted:"; echo "$$bad"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) test -run 'Wall|Arrows' ./gateway
	$(GO) mod tidy -diff

e2e: ## the end-to-end tests of the gateway only
	@.ci/tools
	@test -n '$(E2E)' || { echo 'no end-to-end tests in: $(E2E_FILES)'; exit 1; }
	$(RACE) -count 1 -timeout 20m -v -run '^($(E2E))$$' ./gateway
	@.ci/tools -report

natlab: ## calls from behind firewalls, NAT, proxies and bad lines, in network namespaces (root)
	@.ci/tools
	$(GO) test -count 1 -timeout 5m -v -run '^(TestNatlab.*|TestIPv6)$$' ./gateway

bench: ## every benchmark (BENCHTIME=1s)
	$(GO) test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) -p 1 ./...

bench-sfu: build ## the SFU beside a plain pion one: CPU, latency, loss, memory (RUNS=5; flags: ARGS='-srtp aes-cm')
	@mkdir -p artifacts
	@GO='$(GO)' AGAINST=baseline .ci/load -suite standard $(BENCH) -json artifacts/bench-sfu.json -names Sallyport,plain $(ARGS) >artifacts/bench-sfu.md; \
		status=$$?; cat artifacts/bench-sfu.md; exit $$status

bench-seed: build ## the SFU under the loads that Mattermost publishes figures of (RUNS=5)
	@mkdir -p artifacts
	@GO='$(GO)' .ci/load -suite seed $(BENCH) -ramp 30ms -json artifacts/bench-seed.json -names Sallyport $(ARGS) >artifacts/bench-seed.md; \
		status=$$?; cat artifacts/bench-seed.md; exit $$status

bench-big: build ## calls of up to 1,000 participants, and 1,000 calls: joins, loss, memory (RUNS=5)
	@mkdir -p artifacts
	@GO='$(GO)' .ci/load -suite big $(BENCH) -ramp 20ms -json artifacts/bench-big.json -names Sallyport $(ARGS) >artifacts/bench-big.md; \
		status=$$?; cat artifacts/bench-big.md; exit $$status

bench-turn: bench-turn-packets bench-turn-calls ## TURN beside coturn in front of the same SFU, and beside no TURN (RUNS=5: 12 min)

# Some of it: make bench-turn-packets ARGS='-suite relay:tls'
bench-turn-packets: build
	@mkdir -p artifacts
	@GO='$(GO)' AGAINST=relays .ci/load -suite relay -runs $(RUNS) -ramp 5ms -warm 6s -json artifacts/bench-turn-packets.json -names Sallyport,coturn $(ARGS) >artifacts/bench-turn-packets.md; \
		status=$$?; cat artifacts/bench-turn-packets.md; exit $$status

bench-turn-calls: build
	@mkdir -p artifacts
	@GO='$(GO)' AGAINST=coturn .ci/load -suite turn -runs $$((($(RUNS) + 1) / 2)) -ramp 5ms -warm 6s -duration 5s -json artifacts/bench-turn-calls.json -names Sallyport,coturn $(ARGS) >artifacts/bench-turn-calls.md; \
		status=$$?; cat artifacts/bench-turn-calls.md; exit $$status

bench-proxy: build ## the reverse proxy beside nginx and Caddy: CPU, latency, memory of WebSockets (RUNS=5)
	@mkdir -p artifacts
	@GO='$(GO)' .ci/bench-proxy -runs $(RUNS) $(ARGS) >artifacts/bench-proxy.md; status=$$?; cat artifacts/bench-proxy.md; exit $$status

figures: bench-sfu bench-seed bench-big bench-turn bench-proxy profile ## measure all of docs/performance.md again, and write it there
	@.ci/paste docs/performance.md 'make bench-sfu' <artifacts/bench-sfu.md
	@.ci/paste docs/performance.md 'make bench-seed' <artifacts/bench-seed.md
	@.ci/paste docs/performance.md 'make bench-big' <artifacts/bench-big.md
	@.ci/paste docs/performance.md 'make bench-turn-packets' <artifacts/bench-turn-packets.md
	@.ci/paste docs/performance.md 'make bench-turn-calls' <artifacts/bench-turn-calls.md
	@.ci/paste docs/performance.md 'make bench-proxy' <artifacts/bench-proxy.md
	@.ci/paste docs/performance.md 'make profile' <artifacts/profile/cpu.md
	@cp artifacts/profile-proxy/http1.svg docs/img/flame-proxy.svg
	@cp artifacts/profile/20x8x2/cpu.svg docs/img/flame-20x8x2.svg

profile: build ## CPU, allocation and mutex profiles under load, flame graphs: artifacts/profile
	@GO='$(GO)' .ci/profile $(ARGS)

fuzz: ## every fuzz target, 5 min each (shorter: make fuzz FUZZTIME=30s)
	GO='$(GO)' .ci/fuzz $(FUZZTIME)

load: build ## bin/sallyload against a gateway that is started for it (flags: make load ARGS='-calls 8')
	@GO='$(GO)' .ci/load $(ARGS)

release: ## static binaries for each of PLATFORMS in dist/, with checksums
	GO='$(GO)' LDFLAGS='$(LDFLAGS)' .ci/release '$(VERSION)' $(PLATFORMS)

clean: ## remove what was built
	rm -rf bin dist
