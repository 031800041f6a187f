# The front door for people: `make demo` and `make test` work on a new Debian machine as root.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
BUILD := $(CARGO_TARGET_DIR)
GUEST_TRIPLE := $(shell uname -m)-unknown-linux-gnu
GUEST := $(BUILD)/$(GUEST_TRIPLE)/guest
IMAGE := $(BUILD)/image
# Debian packages of images, kept because Debian drops superseded ones.
PACKAGE_CACHE ?= /var/cache/peerpod/images

.PHONY: help
help: ## Lists what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 16

.PHONY: packages
packages:
	@.ci/packages $(PACKAGES)

.PHONY: demo
demo: packages release guest ## Runs a command in a real pod VM on this machine, and shows each phase with its time
	@tests/demo "$(BUILD)/release" "$(GUEST)" "$(IMAGE)"

# What is built and tested by itself: what the SDK needs of shared libraries must not change what everybody else is built with.
NO_SDK := --exclude peerpods-provider-aws

# WITHOUT=aws leaves the AWS provider out, whose SDK takes a while and up to 9 GB of memory to build the first time.
.PHONY: test
test: packages guest image ## Installs what is missing and runs every test that can run here; WITHOUT=aws for a small machine
	@# All of the lock file for this platform: the import table is held against cargo's own, which is asked offline.
	cargo fetch --locked --quiet --target $(GUEST_TRIPLE)
	PEERPODS_TEST_IMAGE="$(IMAGE)" PEERPODS_TEST_GUEST_PROGRAMS="$(GUEST)" PEERPODS_TEST_IMAGE_CACHE="$(PACKAGE_CACHE)" \
	  cargo test --locked --workspace $(NO_SDK) --all-targets --no-fail-fast
	$(if $(filter aws,$(WITHOUT)),,$(MAKE) aws-test)

.PHONY: aws-test
aws-test: packages guest ## The AWS provider against moto, a local EC2 (from PyPI), and the program that has it, killed between calls
	cargo build --locked -p peerpods-agentlink
	moto=$$(.ci/moto "$(BUILD)") && env PEERPODS_TEST_GUEST_PROGRAMS="$(GUEST)" $${moto:+PEERPODS_TEST_MOTO="$$moto"} \
	  cargo test --locked -p peerpods-provider-aws -p peerpods --features peerpods/aws --all-targets --no-fail-fast

# Both bursts run at once, in real time: 250 s after the build.
.PHONY: aws-burst
aws-burst: packages ## 500 sandboxes at once before EC2's published buckets, from one node and from ten, in real time; prints a table
	moto=$$(.ci/moto "$(BUILD)") && PEERPODS_REQUIRE_ALL=1 $${moto:+env PEERPODS_TEST_MOTO="$$moto"} \
	  cargo test --locked -p peerpods-provider-aws -p peerpods --features peerpods/aws --test moto -- --ignored --nocapture bursts_of_500_in_real_time

# Changes the cluster, and takes away what it made and nothing else. Refused, before anything is changed, is a cluster that has what the suite
# uses by a fixed name (its namespaces, a KataConfig, the operator's objects, pools) and the suite did not make: it goes by its label. What
# breaks the API server, or leads it to a webhook of the test, is a program of yours (tests/it/place.rs says how it is called):
# PEERPODS_TEST_CLUSTER_PROGRAM=FILE; for how long: PEERPODS_TEST_AWAY_SECONDS=300. Without it those tests say SKIP.
#
# What only the test API server can do is not for a real one: tell what it was asked, lose an answer, know clients by their rules.
OWN_SERVER_ONLY := access:: knobs:: late:: refused:: roles:: a_step_that_is_refused a_webhook_behind_a_service_is_known b18_nodes \
  why_the_services_pods_fail
MADE := test.peerpods.io/made
CLUSTER_SUITES := --locked -p peerpods-test-apiserver -p peerpods-operator
CLUSTER_IS_FREE := strangers::tests::the_cluster_is_free_for_the_suite
.PHONY: test-cluster
test-cluster: export PEERPODS_TEST_CLUSTER = 1
test-cluster: packages ## The operator's suite and what it expects of an API server, against the cluster of KUBECONFIG (a test cluster: it is changed)
	@kubectl version >/dev/null || { echo "KUBECONFIG names no cluster that answers" >&2; exit 1; }
	cargo test $(CLUSTER_SUITES) --test it -- --ignored --exact $(CLUSTER_IS_FREE)
	cargo test $(CLUSTER_SUITES) --test contract --test it --no-fail-fast -- \
	  --include-ignored --nocapture $(addprefix --skip ,$(CLUSTER_IS_FREE) $(OWN_SERVER_ONLY))
	@# Stays where a test failed, for whoever looks and for the next run.
	kubectl delete customresourcedefinitions,clusterroles,clusterrolebindings -l $(MADE)
	kubectl delete namespaces -l $(MADE) --field-selector metadata.name!=openshift-config,metadata.name!=openshift-config-managed
	@# OpenShift's build of Kubernetes lets nobody delete these two; they keep the label, and the next run takes them.
	kubectl delete namespaces -l $(MADE) || true

# How many deaths (POINTS), and which history to replay (SEED=17@230+245) or from which workload to begin (SEED=500).
.PHONY: crash-test
crash-test: export PEERPODS_CRASH_POINTS = $(or $(POINTS),3000)
crash-test: export PEERPODS_CRASH_SEED = $(SEED)
# At how many system calls the real daemon dies; 0: at every one.
crash-test: export PEERPODS_CRASH_CALLS = $(or $(CALLS),30)
crash-test: packages guest ## Kills the node service at every step it takes, in a simulated world; POINTS=10000 for long
	cargo test --locked -p peerpods-tests --test crash_simulation -- --nocapture
	cargo build --locked -p peerpods-agentlink
	[ -n "$(SEED)" ] || PEERPODS_TEST_GUEST_PROGRAMS="$(GUEST)" cargo test --locked -p peerpods-tests --test crash_process -- --nocapture

.PHONY: network-cut-test
network-cut-test: packages image ## The VM's network away for 25 s in the middle of a stream and of a 64 MiB CopyFile
	PEERPODS_TEST_IMAGE="$(IMAGE)" PEERPODS_CUT_SECONDS=$${PEERPODS_CUT_SECONDS:-25} \
	  cargo test --locked -p peerpods-tests --test network_cut -- --nocapture

# How often, on how much, and with which numbers: KILLS SANDBOXES QEMU_KILLS SEED.
.PHONY: kill-test
kill-test: export KILLS ?= 100
kill-test: export SANDBOXES ?= 50
kill-test: export QEMU_KILLS ?= 20
kill-test: packages guest image ## Kills the service with kill -9 again and again under running pods
	cargo build --locked -p peerpods -p peerpods-agentlink
	PEERPODS_TEST_IMAGE="$(IMAGE)" PEERPODS_TEST_GUEST_PROGRAMS="$(GUEST)" \
	  cargo test --locked -p peerpods-tests --test kill -- --nocapture

# Somebody's service: SOCKET and NETNS (pods' network namespaces, with commas), ROOTFS (a directory in its guest, or image:REFERENCE).
# Our own: PROVIDER=qemu for real VMs. ARGS="--only killed --output json" and the like.
.PHONY: conformance
conformance: packages $(if $(SOCKET),,guest $(if $(filter qemu,$(PROVIDER)),image)) ## The two Kata shims' calls and deaths against our service, or SOCKET=... NETNS=...
	cargo build --locked -p peerpods -p peerpods-agentlink -p peerpods-tests --bins
	PEERPODS_TEST_IMAGE="$(IMAGE)" PEERPODS_TEST_GUEST_PROGRAMS="$(GUEST)" "$(BUILD)/debug/peerpods-conformance" \
	  $(if $(SOCKET),--socket "$(SOCKET)" --netns "$(NETNS)" $(if $(ROOTFS),--rootfs "$(ROOTFS)"),--provider $(or $(PROVIDER),fake)) $(ARGS)

# Executions a target, which targets, or one input to play again: RUNS=10000000 TARGET="frames session" INPUT=FILE.
.PHONY: fuzz
fuzz: PACKAGES = g++
fuzz: packages ## Every parser that reads from outside under libFuzzer; RUNS=10000000 for long, TARGET=frames for one
	@RUNS="$(RUNS)" TARGET="$(TARGET)" INPUT="$(INPUT)" SECONDS_MOST="$(SECONDS_MOST)" tests/fuzz/run tests/fuzz/rustc

.PHONY: check
check: packages ## Formatting, lints, documentation, shell scripts
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets $(if $(filter aws,$(WITHOUT)),$(NO_SDK),--features peerpods/aws) -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace $(if $(filter aws,$(WITHOUT)),$(NO_SDK),--features peerpods/aws) --no-deps --document-private-items --quiet
	bash -n .ci/run .ci/room .ci/packages .ci/moto images/container/build images/container/try tests/demo tests/upgrade tests/fuzz/run tests/fuzz/rustc

# An older build's daemon and link hand over to this one's. Its checkout and build stay in UPGRADE_DIR for the next time.
FROM ?= dfd8ffc
UPGRADE_DIR ?= $(BUILD)/upgrade
.PHONY: upgrade-test
upgrade-test: packages image ## A pod lives through the upgrade from commit FROM= to this tree
	@tests/upgrade "$(FROM)" "$(UPGRADE_DIR)"
	PEERPODS_REQUIRE_ALL=1 PEERPODS_TEST_IMAGE="$(IMAGE)" PEERPODS_OLD_BUILD="$(UPGRADE_DIR)/build/debug" \
	  cargo test --locked -p peerpods-tests --test upgrade -- --include-ignored
	PEERPODS_REQUIRE_ALL=1 PEERPODS_OLD_LINK="$(UPGRADE_DIR)/build/debug/peerpods-link" \
	  cargo test --locked -p peerpods-agentlink --test link upgrade -- --include-ignored

.PHONY: network-matrix
network-matrix: packages ## Traffic both ways for every shape of a pod's network that CNI plugins make, one line a shape
	PEERPODS_REQUIRE_ALL=1 cargo test --locked -p peerpods-podnet --test netns matrix:: -- --nocapture --test-threads 1

.PHONY: systemd-test
systemd-test: packages ## Links as units of a real systemd, and containerd restarted by one, in namespaces of its own (needs root, systemd, dbus-daemon)
	PEERPODS_REQUIRE_ALL=1 cargo test --locked -p peerpods-agentlink --test link real_systemd -- --ignored --test-threads 1
	PEERPODS_REQUIRE_ALL=1 cargo test --locked -p peerpods --test it real_systemd -- --ignored --test-threads 1

.PHONY: manifests
manifests: ## Writes what deploy/ has of generated files: definitions, the operator and who may do what
	cargo run --locked --quiet -p peerpods-crds --example write -- deploy/crds
	cargo run --locked --quiet -p peerpods-operator --example manifests -- deploy

.PHONY: fmt
fmt: ## Formats all code
	cargo fmt --all

# Files of tests/benches, in the order of the table. ONLY=name runs one and writes no file. BENCH_RUNS and the like: see each file.
BENCHES := start boot sandboxes link tunnel
BENCH_FRAGMENTS := $(BUILD)/bench
.PHONY: bench
bench: export PEERPODS_TEST_IMAGE = $(IMAGE)
bench: export PEERPODS_TEST_GUEST_PROGRAMS = $(GUEST)
bench: export BENCH_DIR = $(BENCH_FRAGMENTS)
# A part that cannot run is an error, and the table is whole or the old one.
bench: export PEERPODS_REQUIRE_ALL = 1
bench: packages release image ## Measures everything against a peer and writes tests/BENCHMARKS.md; ONLY=start for one part
	mkdir -p "$(BENCH_FRAGMENTS)"
	[ -n "$(ONLY)" ] || rm -f "$(BENCH_FRAGMENTS)"/*.json
	cargo bench --locked -p peerpods-tests $(foreach bench,$(or $(ONLY),$(BENCHES)),--bench $(bench))
	[ -n "$(ONLY)" ] || "$(BUILD)/release/peerpods-bench-table" "$(BENCH_FRAGMENTS)" $(BENCHES) > "$(BENCH_FRAGMENTS)/table.md"
	[ -n "$(ONLY)" ] || mv "$(BENCH_FRAGMENTS)/table.md" tests/BENCHMARKS.md

.PHONY: link-memory
link-memory: packages ## What one link process takes of memory, idle, with a shim, and after 64 MiB
	cargo build --locked --release -p peerpods-agentlink
	PEERPODS_REQUIRE_ALL=1 PEERPODS_LINK_PROGRAM="$(BUILD)/release/peerpods-link" \
	  cargo test --locked -p peerpods-agentlink --test link memory:: -- --nocapture

.PHONY: link-load
link-load: packages ## 1 GiB of CopyFile through the link with its checksum, and the rest of the link's load tests; MIB=4096 for more
	PEERPODS_REQUIRE_ALL=1 PEERPODS_LINK_COPY_MIB="$(or $(MIB),1024)" \
	  cargo test --locked -p peerpods-agentlink --test link -- --nocapture bulk:: flight:: garbage:: pressure::

# What is shipped has every provider. Their SDKs take long to build (README, "AWS"): FEATURES= leaves them out, and the demo and the benchmarks do.
FEATURES ?= aws
demo bench: FEATURES =
.PHONY: release
release: ## The programs of a node, with every provider; FEATURES= without the cloud SDKs
	cargo build --locked --release -p peerpods -p peerpods-agentlink $(if $(FEATURES),--features "$(FEATURES:%=peerpods/%)")

# The host's systemd runs the link with the host's C library, so in the container image it is one that needs none. Its part of the crate
# needs no systemd.
LINK := $(BUILD)/$(GUEST_TRIPLE)/release/peerpods-link
.PHONY: static-link
static-link:
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target $(GUEST_TRIPLE) \
	  -p peerpods-agentlink --no-default-features --bin peerpods-link

# PROGRAM=FILE takes a program that was built before.
PROGRAM ?=
CONTAINER := $(BUILD)/container/peerpods.tar
.PHONY: container
container: packages $(if $(PROGRAM),,release) static-link ## The container image that deploy/ runs, as an OCI archive; PROGRAM=FILE: of a built peerpods, FEATURES= without the cloud SDKs
	images/container/build "$(CONTAINER)" "$(or $(PROGRAM),$(BUILD)/release/peerpods)" "$(LINK)"
	@# It starts where it is to: read-only, as its own user, with nothing but what is in it.
	images/container/try "$(CONTAINER)" --version
	images/container/try "$(CONTAINER)" --exec peerpods-link --version
	@printf '%s\n' "" "To push it (a tag of its own: nodes keep what they pulled under a name):" \
	  "  skopeo copy oci-archive:$(CONTAINER) docker://REGISTRY/peerpods:TAG" "and to run it:" \
	  "  helm install peerpods deploy/chart --set image=REGISTRY/peerpods:TAG -n openshift-sandboxed-containers-operator" \
	  "  peerpods manifests --image REGISTRY/peerpods:TAG | kubectl apply --server-side -f -"

# The programs in the VM are static. The target is named, or build scripts and macros would get the flag too.
.PHONY: guest
guest:
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --profile guest --target $(GUEST_TRIPLE) \
	  -p peerpods-guest -p peerpods-miniagent
	@# Where `peerpods image build` looks for them without being told.
	@mkdir -p "$(BUILD)/release" && cp -u "$(GUEST)/peerpods-guest" "$(GUEST)/miniagent" "$(BUILD)/release/"

.PHONY: image
image: guest
	@# All programs, so that libraries get the features that the tests build them with, and are compiled once.
	cargo build --locked --workspace $(NO_SDK) --bins
	"$(BUILD)/debug/peerpods" image build --target qemu --guest "$(GUEST)/peerpods-guest" --miniagent "$(GUEST)/miniagent" --out "$(IMAGE)"
