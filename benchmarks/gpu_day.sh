#!/usr/bin/env bash
# Everything that needs a GPU, in pieces of under ten minutes, without a network: builds with the machine's own nvcc, runs
# the GPU's tests, compute-sanitizer and the benchmarks, and writes one file of results (benchmarks/README.md).
#
#   benchmarks/gpu_day.sh [--list] [--minutes N] [--jobs N] [--limit S] [--seconds S] [PIECE...]
#
# Done pieces are not done again, failed ones are: the folder build/gpu_day/COMMIT, or $RESNETCORE_GPU_DAY, remembers.
# --minutes: no piece begins that might not end within N minutes. --jobs: so many of the pieces that look at no clock run
# side by side (1). --limit: seconds that a piece may take, where its own limit is longer. --seconds: of measuring a shape
# (4). Wheels that the machine lacks lie in wheels/, or in $RESNETCORE_WHEELS; where resnetcore's own is among them, it is
# installed instead of built. Ends with 0 when all pieces asked for have passed, 1 when one failed, 2 when there was no
# time for some.
set -uo pipefail
cd "$(dirname "$0")/.."
commit="${RESNETCORE_COMMIT:-$(git rev-parse --short HEAD 2> /dev/null || echo unknown)}"
work="$(realpath -m "${RESNETCORE_GPU_DAY:-build/gpu_day/$commit}")"
wheels="${RESNETCORE_WHEELS:-wheels}"
python="${PYTHON:-python3}"
results="${RESNETCORE_RESULTS:-benchmarks/results}"
export PYTHONPATH="$work/site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 RESNETCORE_COMMIT="$commit"
# JAX would take most of the GPU's memory for itself.
export XLA_PYTHON_CLIENT_PREALLOCATE=false
# The wheels' programs (ninja's package looks for its own elsewhere), and CUDA's where the PATH lacks them.
export PATH="$PATH:$work/site/bin:/usr/local/cuda/bin"

# The machine's versions of other libraries warn of other things than those that the tests are written with.
tests="$python -m pytest -q -p no:cacheprovider -o filterwarnings=default --durations=5 -n 4 --dist worksteal"
narrow="--device cuda --precision bfloat16"

# A name, the seconds it may take, and the command. Names of pieces that look at the clock, and run alone, end in "speed".
pieces=(
    "build|590|build"
    "smoke|60|$python -m benchmarks.small_shapes cuda"
    "gates|300|RESNETCORE_CUDA=ON $python -m pytest -q tests/test_cuda_build.py tests/test_cuda_device.py"
    "tests|590|$tests -m gpu"
)
# The path that is taken by itself is that of the pieces above and below; others, in bfloat16, where they are named.
for path in simple ampere hopper hopper_fused; do
    of="RESNETCORE_CUDA_PATH=$path"
    kernels="$of $python -m benchmarks.kernels --shapes 3 --steps 3"
    [ "$path" = hopper_fused ] && kernels+=" --variant norm"
    # That its own kernels run: a product that is not for them goes the simple way without a word.
    [ "$path" = ampere ] && kernels+=" | tee $work/copied.txt && grep -q copied_sum_kernel $work/copied.txt && grep -q copied_weights_kernel $work/copied.txt"
    [ "$path" = hopper_fused ] && kernels+=" | tee $work/norms.txt && grep -q fused_chain_kernel $work/norms.txt"
    pieces+=(
        "$path-smoke|60|$of $python -m benchmarks.small_shapes cuda bfloat16"
        "$path-tests|590|$of $tests -m gpu -k bfloat16"
        "$path-kernels|60|$kernels"
    )
    for check in memcheck racecheck; do
        pieces+=("$path-$check|590|$of compute-sanitizer --tool $check --target-processes all --error-exitcode 9 $python -m benchmarks.small_shapes cuda bfloat16 brief")
    done
done
# Likewise Hopper's own.
pieces+=("default-kernels|60|$python -m benchmarks.kernels --shapes 3 5 --steps 3 | tee $work/kernels.txt && grep -q chain_kernel $work/kernels.txt && grep -q wide_sum_kernel $work/kernels.txt && grep -q broad_sum_kernel $work/kernels.txt && grep -q wide_weights_kernel $work/kernels.txt")
for check in memcheck racecheck initcheck synccheck; do
    for dtype in float32 bfloat16 float64; do
        pieces+=("$check-$dtype|590|compute-sanitizer --tool $check --target-processes all --error-exitcode 9 $python -m benchmarks.small_shapes cuda $dtype brief")
    done
done
for options in "" "--variant norm" "--variant dense" "--mode infer" "--precision bfloat16" "--precision bfloat16 --variant norm" "--mode infer --precision bfloat16" "--mode infer --precision bfloat16 --variant norm"; do
    name=benchmark
    for word in $options; do [[ "$word" == --* ]] || name+="-$word"; done
    pieces+=("$name-speed|590|$python -m benchmarks --device cuda --seconds \$seconds --out $work/benchmarks $options")
done
# Other paths beside it, of the same shapes.
for path in simple ampere hopper; do
    for options in "" "--mode infer"; do
        name=$path
        for word in $options; do [[ "$word" == --* ]] || name+="-$word"; done
        pieces+=("$name-speed|590|RESNETCORE_CUDA_PATH=$path $python -m benchmarks $narrow --rivals resnetcore --seconds 1 --out $work/benchmarks/$path $options")
    done
done
# What norms gain within a chain, beside the same on the path that is taken by itself.
for path in hopper_fused hopper_narrow; do
    name="hopper_fused-speed" && [ "$path" = hopper_narrow ] && name="hopper_fused-without-speed"
    pieces+=("$name|100|RESNETCORE_CUDA_PATH=$path $python -m benchmarks $narrow --variant norm --shapes 3 --rivals resnetcore torch_compile --no-memory --seconds 1 --out $work/benchmarks/$name")
done
pieces+=("parts-speed|100|$python -m benchmarks.kernels")

build() {
    mkdir -p "$work/site"
    if compgen -G "$wheels/*.whl" > /dev/null; then
        "$python" -m pip install -q --no-index --no-deps --upgrade --target "$work/site" "$wheels"/*.whl || return
    fi
    compgen -G "$wheels/resnetcore-*.whl" > /dev/null ||
        CMAKE_BUILD_PARALLEL_LEVEL="$(nproc)" RESNETCORE_CUDA=ON "$python" -m pip install --no-index --no-deps --no-build-isolation --upgrade --target "$work/site" . || return
    "$python" -c "import resnetcore as rc; rc.show_config(); from resnetcore import _core; print(_core.check_device('cuda'))"
}

# Its output goes to NAME.log, and its state to NAME.state: passed, failed or, by its limit, stopped; seconds, and the
# output's last line.
run_piece() {
    local name="$1" limit="$2" command="$3" began=$SECONDS state=passed
    printf '== %s\n' "$name"
    if [ "$command" = build ]; then
        export -f build
        export work wheels python
    fi
    timeout -k 15 "$limit" bash -c "$command" > "$work/$name.log" 2>&1
    case $? in
        0) ;;
        124 | 137) state=stopped ;;
        *) state=failed ;;
    esac
    tail -n 3 "$work/$name.log"
    printf '%s\n%s\n%s\n' "$state" "$((SECONDS - began))" "$(grep -v '^$' "$work/$name.log" | tail -n 1)" > "$work/$name.state"
    printf '== %s: %s, %d s\n' "$name" "$state" "$((SECONDS - began))"
}

export seconds=4
minutes=0 jobs=1 longest=590 chosen=()
while [ $# -gt 0 ]; do
    case "$1" in
        --list) printf '%s\n' "${pieces[@]%%|*}" && exit ;;
        --minutes) minutes="$2" && shift ;;
        --jobs) jobs="$2" && shift ;;
        --limit) longest="$2" && shift ;;
        --seconds) seconds="$2" && shift ;;
        -*) sed -n '2,15s/^# \{0,1\}//p' "$0" && exit 64 ;;
        *) chosen+=("$1") ;;
    esac
    shift
done

mkdir -p "$work"
passed() { [ "$(head -n 1 "$work/$1.state" 2> /dev/null)" = passed ]; }

late=0
asked=()
for piece in "${pieces[@]}"; do
    IFS='|' read -r name limit command <<< "$piece"
    if [ "${#chosen[@]}" -gt 0 ] && [[ ! " ${chosen[*]} " == *" $name "* ]]; then continue; fi
    asked+=("$name")
    passed "$name" && continue
    limit=$((limit < longest ? limit : longest))
    if [ "$minutes" -gt 0 ] && [ "$((SECONDS + limit))" -gt "$((60 * minutes + 30))" ]; then
        late=2
        continue
    fi
    if [ "$name" = build ] || [ "$name" = smoke ]; then  # without which nothing else is worth its time
        run_piece "$name" "$limit" "$command"
        passed "$name" || break
    elif [[ "$name" == *speed ]] || [ "$jobs" -eq 1 ]; then
        wait
        run_piece "$name" "$limit" "$command"
    else
        while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
        run_piece "$name" "$limit" "$command" &
    fi
done
wait
status=$late
for name in "${asked[@]}"; do
    [ -e "$work/$name.state" ] && ! passed "$name" && status=1
done
"$python" -m benchmarks.gpu_day "$work" "$results" "$(printf '%s ' "${pieces[@]%%|*}")" || status=1
exit "$status"
