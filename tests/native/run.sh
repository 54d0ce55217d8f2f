#!/usr/bin/env bash
# The kernels and the thread team without Python, and all under sanitizers. No argument is all three in turn.
#
#   tests/native/run.sh native      kernels_test and team_test with every compiler there is, warnings as errors
#   tests/native/run.sh arm         kernels_test for 64-bit ARM in an emulator; exits 77 where the tools are missing
#   tests/native/run.sh sanitize    team_test with ThreadSanitizer; kernels_test and the Python suite with
#                                   AddressSanitizer and UBSan; needs GCC; what follows goes to pytest
#
# PYTHON (python3) is an interpreter with all that building and testing needs, CC_ARM and QEMU the tools for ARM.
set -euo pipefail
cd "$(dirname "$0")/../.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
SANITIZE=(-fno-sanitize-recover=all -g)

build() { # $1 into $scratch/$1 of the compiler, flags and sources that follow; optimised as in setup.py
    local name=$1
    shift
    "$@" -std=c11 -ffp-contract=fast -fvisibility=hidden -Wall -Wextra -Werror -Icsrc -pthread -o "$scratch/$name" -lm
}

kernels_test() { build "$@" csrc/dispatch.c csrc/isa_*.c tests/native/kernels_test.c; }
team_test() { build "$@" csrc/team.c tests/native/team_test.c; }

native() {
    local cc
    for cc in gcc clang; do
        command -v "$cc" > /dev/null || { echo "-- no $cc here"; continue; }
        echo "-- $cc"
        kernels_test "kernels_$cc" "$cc" -O3
        "$scratch/kernels_$cc"
        team_test "team_$cc" "$cc" -O3
        "$scratch/team_$cc"
    done
}

arm() {
    local cc=${CC_ARM:-aarch64-linux-gnu-gcc} qemu=${QEMU:-}
    qemu=${qemu:-$(command -v qemu-aarch64 || command -v qemu-aarch64-static || true)}
    if ! command -v "$cc" > /dev/null || [ -z "$qemu" ]; then
        echo "-- skipped: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
        return 77
    fi
    kernels_test arm "$cc" -static -O3
    "$qemu" "$scratch/arm" neon # the baseline, which here is scalars, is under sanitizers below
}

# The kernels with the flags that follow, in $scratch/$1: once for kernels_test and the package, and side by side, for they
# take minutes. What this CPU cannot run gets no flags, which saves most of its own.
kernels() {
    local into=$scratch/$1 jobs=() source flags
    shift
    mkdir "$into"
    for source in csrc/dispatch.c csrc/isa_*.c; do
        flags=("$@")
        case $source in *avx512*) grep -q avx512f /proc/cpuinfo || flags=() ;; esac
        gcc -O1 "${flags[@]}" -fPIC -std=c11 -ffp-contract=fast -fvisibility=hidden -Icsrc -c "$source" \
            -o "$into/$(basename "$source" .c).o" &
        jobs+=($!)
    done
    for source in "${jobs[@]}"; do wait "$source"; done
}

# A compiler that takes them from $scratch/$1.
compiler() {
    cat > "$scratch/cc" <<'EOF'
#!/usr/bin/env bash
for ((i = 1; i < $#; i++)); do
    case ${!i} in -c) source=${@:i+1:1} ;; -o) object=${@:i+1:1} ;; esac
done
case ${source:-} in csrc/isa_*.c) exec cp "$OBJECTS/$(basename "$source" .c).o" "$object" ;; *) exec gcc "$@" ;; esac
EOF
    chmod +x "$scratch/cc"
    export OBJECTS=$scratch/$1
}

sanitize() {
    local flags="-fsanitize=address,undefined ${SANITIZE[*]}" python=${PYTHON:-python3}
    echo "-- team_test"
    team_test raced gcc -O1 -fsanitize=thread -g
    "$scratch/raced"

    echo "-- kernels_test"
    kernels objects $flags
    build sanitized gcc -O1 $flags "$scratch"/objects/*.o tests/native/kernels_test.c
    # The report of where it happened instead of the test's own message.
    ASAN_OPTIONS=handle_segv=2:handle_sigbus=2 "$scratch/sanitized"
    echo "-- kernels_test of what other compilers get"
    kernels scalars $flags -DFR_SCALARS
    build sanitized_scalars gcc -O1 $flags -DFR_SCALARS "$scratch"/scalars/*.o tests/native/kernels_test.c
    ASAN_OPTIONS=handle_segv=2:handle_sigbus=2 "$scratch/sanitized_scalars"

    echo "-- the Python suite"
    mkdir "$scratch/tree"
    git ls-files -z --cached --others --exclude-standard | tar --null -T - -cf - | tar -xf - -C "$scratch/tree"
    cd "$scratch/tree"
    sed -i 's/"-O3"/"-O1"/' setup.py # as above; -O3 with all that is checked takes four times as long to build
    compiler objects
    CC=$scratch/cc CFLAGS=$flags LDFLAGS=$flags "$python" setup.py --quiet egg_info build_ext --inplace > build.log 2>&1 ||
        { cat build.log; return 1; }
    # ASan's library has to come first, for the interpreter is not linked to it. Python leaks at exit, and one test asks
    # for more memory than there is. Every object by itself from malloc, where ASan watches it. pytest would swallow
    # what is said at an abort, so that goes to files. ASan holds freed memory back: no test of growth. Processes that
    # tests start take the package from PYTHONPATH.
    export LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"
    export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:log_path=$scratch/report
    export UBSAN_OPTIONS=print_stacktrace=1:log_path=$scratch/report PYTHONMALLOC=malloc PYTHONPATH=$PWD
    "$python" -c 'import fastrnn, sys; sys.exit(not fastrnn.__file__.startswith(sys.argv[1]))' "$PWD"
    # By themselves those that count seconds, or whose threads wait for each other.
    local timed=(tests/test_survival.py tests/test_concurrency.py tests/test_team.py)
    # Before LLVM 18 (llvm-project#75290) fork did not wait for the locks of ASan's malloc, and a child hangs in one that
    # another thread held: with GCC 12, one of some thousands. The C library's malloc is safe there, in the other runs.
    "$python" -m pytest -q "${timed[@]/#/--ignore=}" "$@" \
        --deselect tests/test_memory.py::test_training_does_not_grow_the_process &&
        "$python" -m pytest -q "${timed[@]}" \
            --deselect tests/test_survival.py::test_a_fork_while_another_thread_is_inside_a_call ||
        { cat "$scratch"/report.*; return 1; }
}

case ${1:-} in
    native | arm | sanitize) "$@" ;; # called as they are: within && or || errors would not end them
    "") native; arm; sanitize ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
